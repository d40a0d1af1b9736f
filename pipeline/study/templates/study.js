"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = window.matchMedia("(max-width: 40rem)");

// Colours live in the style sheet alone, so charts follow its light, dark and printed forms.
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// Beside long labels a narrow screen has no room for a chart: they are broken into lines.
function broken(label) {
  const lines = [""];
  for (const word of label.split(" ")) {
    const line = lines[lines.length - 1];
    if (line && line.length + word.length >= 20) lines.push(word);
    else lines[lines.length - 1] = line ? line + " " + word : word;
  }
  return lines.join("<br>");
}

function styled(figure) {
  const dressed = structuredClone(figure);
  if (narrow.matches && dressed.layout.yaxis.type === "category") {
    const { yaxis } = dressed.layout;
    for (const trace of dressed.data) trace.y = trace.y.map(broken);
    yaxis.categoryarray = yaxis.categoryarray.map(broken);
    dressed.layout.height += 18 * yaxis.categoryarray.length;
  }
  for (const trace of dressed.data) {
    const tint = colour(trace.meta === "simple" ? "simple" : "accent");
    trace.marker = { color: tint, size: 8, symbol: trace.meta === "combined" ? "circle-open" : "circle", line: { width: 2, color: tint } };
    if (trace.error_x) trace.error_x.color = tint;
    if (trace.mode.includes("text")) trace.textfont = { color: colour("soft"), size: 11 };
  }
  const layout = dressed.layout;
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 13, color: colour("ink") };
  layout.hoverlabel = { bgcolor: colour("wash"), bordercolor: colour("line"), font: { color: colour("ink") } };
  for (const axis of [layout.xaxis, layout.yaxis]) {
    Object.assign(axis, { gridcolor: colour("line"), zerolinecolor: colour("ink"), linecolor: colour("line"), fixedrange: true });
    if (axis.title) axis.title.font = { size: 12, color: colour("soft") };
  }
  layout.yaxis.showgrid = layout.yaxis.type !== "category";
  layout.xaxis.nticks = narrow.matches ? 4 : 8;
  return dressed;
}

function draw() {
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout } = styled(figure);
    Plotly.react(name, data, layout, { displayModeBar: false, responsive: true });
  }
}

function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentElement.children].indexOf(header);
  const descending = header.getAttribute("aria-sort") !== "descending";
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(b) : a - b);
  const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b)) * (descending ? -1 : 1));
  table.tBodies[0].append(...rows);
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
const details = [...document.querySelectorAll("details")];
window.addEventListener("beforeprint", () => { for (const part of details) part.open = true; draw(); });
window.addEventListener("afterprint", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
window.matchMedia("print").addEventListener("change", draw);
narrow.addEventListener("change", draw);
draw();
