"""The page in a real browser: it opens without an error, and its tables, charts and switches do what they say."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.page import render_report
from tests.report.simulated import content, empty_content

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is on the PATH; on Debian: apt-get install chromium"
)

WATCH = """<script>
window.errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
console.error = (...told) => errors.push(told.join(" "));
</script>"""
ACT = """<script>
window.addEventListener("load", () => {
  const done = {};
  try { (function (done) { %s })(done); } catch (error) { errors.push(String(error)); }
  const result = document.createElement("pre");
  result.id = "test-result";
  result.textContent = JSON.stringify({ done, errors });
  document.body.append(result);
});
</script>"""
ACTIONS = """
const table = document.getElementById("metrics-table");
const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
const column = (number) => shown().map((row) => row.cells[number].textContent);
const header = (name) => [...table.tHead.querySelectorAll("th")].find((one) => one.textContent === name);
const choose = (id, value) => {
  const input = document.getElementById(id);
  input.value = value;
  input.dispatchEvent(new Event("input"));
};
const click = (name) => {
  header(name).querySelector("button").click();
  return header(name).getAttribute("aria-sort");
};

done.slices = column(1);
done.firstOrder = click("value");
done.falling = column(4);
done.secondOrder = click("value");
done.rising = column(4);
click("slice");
done.bySlice = column(1);
done.sortedHeaders = table.querySelectorAll("[aria-sort]").length;

choose("metric-words", "WEEKS ndcg");
done.weeks = column(1);
choose("metric-choice", "");
choose("metric-words", "policy_value");
done.policy = [...new Set(column(0))];
click("value");
done.policyValues = column(4);
done.count = document.getElementById("metric-count").textContent;

done.drawn = [...document.querySelectorAll(".chart")].map((chart) => chart.querySelectorAll("path.point").length);
const paper = () => getComputedStyle(document.body).backgroundColor;
const ink = () => document.querySelector("#slices-chart text").style.fill;
done.light = [paper(), ink()];
document.getElementById("theme").click();
done.dark = [paper(), ink()];
document.getElementById("theme").click();
done.again = [paper(), ink()];
document.documentElement.style.maxWidth = Math.min(innerWidth, WIDTH) + "px";
done.contentWidth = document.body.clientWidth;
done.scrollsSideways = document.body.scrollWidth > document.body.clientWidth;
"""


def browse(page: str, actions: str, folder: Path, width: int = 1_000) -> dict[str, Any]:
    """Opens a page, acts, and returns what the actions found and which errors there were."""
    file = folder / "page.html"
    body = page.index("</body>")
    page = page[:body] + ACT % actions + page[body:]
    file.write_text(page.replace("<head>", f"<head>{WATCH}", 1), encoding="utf-8")
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    options = [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},800", "--dump-dom", file.as_uri()]
    dumped = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True).stdout
    (result,) = re.findall(r'<pre id="test-result">(.*?)</pre>', dumped, re.DOTALL)
    return json.loads(html.unescape(result))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = browse(render_report(content()), ACTIONS.replace("WIDTH", "1000"), tmp_path_factory.mktemp("browser"))
    assert result["errors"] == []
    return result["done"]


def test_a_click_on_a_heading_sorts_and_another_one_turns_it_round(found: dict[str, Any]):
    assert found["slices"][:3] == ["overall", "gender=F", "gender=M"], "the main metric alone, at first"
    assert (found["firstOrder"], found["secondOrder"]) == ("descending", "ascending")
    values = [float(value) for value in found["falling"]]
    assert len(set(values)) > 4
    assert values == sorted(values, reverse=True)
    assert found["rising"] == [f"{value:.4f}" for value in sorted(values)]
    assert found["bySlice"] == [
        "gender=F",
        "gender=M",
        "occupation=</script><script>alert(1)</script>",
        "overall",
        "user_activity=new",
        "weeks_since_training=0",
        "weeks_since_training=2",
        "weeks_since_training=10+",
    ]
    assert found["sortedHeaders"] == 1


def test_filters_show_what_holds_every_word(found: dict[str, Any]):
    assert found["weeks"] == [f"weeks_since_training={week}" for week in ("0", "2", "10+")]
    assert sorted(found["policy"]) == ["policy_value_ips", "policy_value_snips"]
    assert found["policyValues"] == ["0.3000", "refused"], "what has no value is last"
    assert re.fullmatch(r"2 of \d+ rows", found["count"])


def test_charts_are_drawn(found: dict[str, Any]):
    assert len(found["drawn"]) == 4
    assert all(found["drawn"])


def test_the_switch_turns_page_and_charts_dark_and_back(found: dict[str, Any]):
    assert found["light"] == found["again"]
    assert all(light != dark for light, dark in zip(found["light"], found["dark"], strict=True))


def test_it_fits_a_phone(found: dict[str, Any], tmp_path: Path):
    # The narrowest window that browsers make has 500 pixels; the page is told to do with fewer.
    narrow = browse(render_report(content()), ACTIONS.replace("WIDTH", "360"), tmp_path, width=500)
    assert narrow["errors"] == []
    assert narrow["done"]["contentWidth"] <= 360
    assert not narrow["done"]["scrollsSideways"]
    assert not found["scrollsSideways"]


def test_the_page_of_a_failed_run_opens_too(tmp_path: Path):
    result = browse(render_report(empty_content()), "done.title = document.title;", tmp_path)
    assert result == {"done": {"title": "Run on small, 2026-11-24 12:00:00"}, "errors": []}
