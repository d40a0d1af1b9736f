"""The page about the contract says what the cases say."""

from __future__ import annotations

from tests.serving_contract.document import DOCUMENT, render


def test_page_is_what_the_cases_make():
    assert DOCUMENT.read_text(encoding="utf-8") == render(), (
        "the page is out of date; run python -m tests.serving_contract.document"
    )
