"""The file itself: everything inside, everything escaped, no script but ours."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from evomerge.report.grid import Cell, Grid, Line
from evomerge.report.page import (
    Callout,
    Code,
    Fold,
    ItemTable,
    Listing,
    Part,
    Plot,
    Section,
    write_page,
)
from tests.report.page.studies import HOSTILE

PLOT = Plot("one", "A title", "What it shows.", {"data": [], "layout": {"height": 300}})
PAGE = files("evomerge.report.page")


class Elements(HTMLParser):
    """Collects tags, scripts and all other text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append(str(dict(attrs).get("type", "")))

    def handle_data(self, data: str) -> None:
        self.text += data


def sections(text: str) -> list[Section]:
    grid = Grid(
        text, ("", text), (Line(text, "winner", (Cell(text, "[0, 1]", best=True),)),), (text,)
    )
    plot = Plot("one", text, text, {"data": [{"name": text}], "layout": {}})
    items = ItemTable({"rows": [{"name": text}], "tasks": []})
    parts: list[Part] = [text, Callout(text), Listing([text]), grid, Code(text, text), plot, items]
    return [Section("all", text, [*parts, Fold(text, [text, grid])])]


def test_texts_from_outside_are_shown_and_never_markup() -> None:
    page = Elements(write_page(HOSTILE, sections(HOSTILE), subtitle=HOSTILE))
    calm = Elements(write_page("calm", sections("calm"), subtitle="calm"))
    assert page.tags == calm.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in calm.attributes]
    assert page.text.count(HOSTILE) > 15


def test_no_text_from_outside_stands_in_a_script() -> None:
    page = write_page("t", sections(HOSTILE))
    blocks = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    assert len(blocks) == 3
    assert not any("pwned" in block for block in blocks)
    data = json.loads(gzip.decompress(base64.b64decode(blocks[1])))
    assert data["plots"]["one"]["data"][0]["name"] == HOSTILE
    assert data["items"]["rows"][0]["name"] == HOSTILE


def test_only_our_two_scripts_may_run_and_nothing_may_be_loaded() -> None:
    page = write_page("t", [Section("s", "S", [PLOT])])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    bundle, _, script = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    sources = [gzip.decompress(base64.b64decode(bundle)), script.encode()]
    for source in sources:
        digest = base64.b64encode(hashlib.sha256(source).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    links = [
        value
        for name, value in Elements(page).attributes
        if name in ("src", "href", "action", "data", "srcset")
    ]
    assert {str(link)[0] for link in links if link != "data:,"} == {"#"}


def test_a_page_without_figures_carries_no_plotly() -> None:
    page = write_page("t", [Section("s", "S", ["text"])])
    assert len(page) < 40_000
    assert 'id="plotly"' not in page
    assert "plotly.js, ©" not in page


def test_the_bundle_is_the_one_that_its_readme_names() -> None:
    readme = PAGE.joinpath("plotly/README.md").read_text()
    bundle = gzip.decompress(PAGE.joinpath("plotly/plotly-cartesian.min.js.gz").read_bytes())
    assert f"`{hashlib.sha256(bundle).hexdigest()}`" in readme
    version = re.search(rb"plotly\.js \(cartesian - minified\) v([\d.]+)", bundle)
    assert version is not None
    assert f"version {version[1].decode()}" in readme
    assert "MIT" in PAGE.joinpath("plotly/LICENSE").read_text()


def test_the_same_page_twice_is_the_same() -> None:
    assert write_page("t", sections("a")) == write_page("t", sections("a"))


def test_empty_sections_are_left_out_and_a_page_may_reload_itself() -> None:
    page = write_page("t", [Section("a", "First", ["x"]), Section("b", "Second", [])], refresh=True)
    assert "First" in page
    assert "Second" not in page
    assert 'data-refresh="10"' in page
    assert 'data-refresh="0"' in write_page("t", [])


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31mb", "a\u202eb", "a\ud800b"])
def test_characters_that_steer_are_dropped(text: str) -> None:
    page = write_page(text, [Section("s", "S", [text])])
    page.encode()
    assert not set("\x00\x1b\u202e") & set(page)


def test_what_is_no_number_is_refused() -> None:
    figure: dict[str, Any] = {"data": [{"y": [float("nan")]}], "layout": {}}
    with pytest.raises(ValueError, match="JSON"):
        write_page("t", [Section("s", "S", [Plot("one", "A", "B", figure)])])
