"""Pages in Chromium without a network: drawn, readable, reachable, accessible, and safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.candidate import Merge, PathStep, Stack
from evomerge.candidate.ensemble import Ensemble, Router
from evomerge.explanation.page import explanation_page
from evomerge.report.page.study import report_page
from evomerge.report.page.writing import LARGEST
from evomerge.store import Store
from tests.explanation.made_up import made_up
from tests.report.page.conftest import Open, Opened
from tests.report.page.studies import HOSTILE, write_study

MEMBERS = {name: Merge("passthrough", (f"/models/{name}",)) for name in ("extraction", "facts")}
STUDIES: dict[str, dict[str, Any]] = {
    "finished": {},
    "running": {"until": "search"},
    "interrupted": {"until": "select"},
    "pareto": {"mode": "pareto"},
    "ensemble": {
        "routes": True,
        "candidate": Ensemble(
            "/models/base",
            MEMBERS,
            Router(layer=1),
        ),
    },
    "stack": {
        "candidate": Stack(
            "/models/base", MEMBERS, (PathStep("extraction", 0), PathStep("facts", 1, 0.9))
        )
    },
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for name, settings in STUDIES.items():
        study = write_study(folder / name, **settings)
        found[name] = page_of(study)
    found["explanation"] = folder / "explanation.html"
    found["explanation"].write_text(explanation_page(made_up()), encoding="utf-8")
    return found


def page_of(study: Path, *, refresh: bool = False) -> Path:
    with Store.open(study, write=False) as store:
        text = report_page(store, refresh=refresh)
    file = study / "report.html"
    file.write_text(text, encoding="utf-8")
    assert file.stat().st_size <= LARGEST
    return file


def undrawn(opened: Opened) -> list[str]:
    """Return the figures without marks, or without a picture."""
    return list(
        opened.page.evaluate(
            """() => [...document.querySelectorAll(".plot")].filter((place) => {
              const marks = place.querySelectorAll(".mlayer :is(path, image, rect, text)");
              return !place.querySelector("svg.main-svg") || !marks.length;
            }).map((place) => place.dataset.plot)"""
        )
    )


def cut(opened: Opened) -> list[str]:
    """Return texts that leave the page, or their figure."""
    return list(
        opened.page.evaluate(
            """() => {
              const found = [];
              const wide = document.documentElement.clientWidth;
              for (const each of document.querySelectorAll("main *, header *, nav *")) {
                if (each.closest(".scroll, svg, pre, .hidden")) continue;
                const box = each.getBoundingClientRect();
                if (box.right > wide + 1 || box.left < -1) found.push(each.tagName + " " + each.className);
              }
              for (const text of document.querySelectorAll(".plot svg text")) {
                if (!text.textContent.trim() || getComputedStyle(text).opacity === "0") continue;
                const box = text.getBoundingClientRect();
                const around = text.closest(".plot").getBoundingClientRect();
                if (!box.width) continue;
                if (box.left < around.left - 2 || box.right > around.right + 2
                    || box.top < around.top - 2 || box.bottom > around.bottom + 2) {
                  found.push(`${text.closest(".plot").dataset.plot}: ${text.textContent}`);
                }
              }
              return found;
            }"""
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", [*STUDIES, "explanation"])
def test_every_page_is_drawn_and_readable_without_a_network(
    pages: dict[str, Path], open_page: Open, name: str, width: int, scheme: str
) -> None:
    opened = open_page(pages[name], width=width, scheme=scheme)
    assert opened.faults == []
    assert {url.split(":")[0] for url in opened.requests} <= {"file", "data", "blob"}
    assert opened.page.locator(".plot").count() > 0
    assert undrawn(opened) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert cut(opened) == []
    assert opened.page.locator("#trouble").inner_text() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["finished", "ensemble", "explanation"])
def test_axe_finds_no_serious_fault(
    pages: dict[str, Path], open_page: Open, name: str, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened = open_page(pages[name], width=width, scheme=scheme)
    opened.page.evaluate(
        "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
    )
    found = axe.run(opened.page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in grave] == []


def test_every_control_is_reached_by_the_tab_key_and_seen(
    pages: dict[str, Path], open_page: Open
) -> None:
    page = open_page(pages["finished"]).page
    page.evaluate(
        """() => {
          window.unseen = [];
          document.addEventListener("focusin", ({ target }) => {
            target.dataset.reached = "yes";
            const seen = getComputedStyle(target).outlineStyle !== "none";
            if (!seen) unseen.push(target.outerHTML.slice(0, 80));
          });
        }"""
    )
    controls = "a[href], button:not(:disabled), select, input, summary, [tabindex='0']"
    count = page.locator(controls).count()
    assert count > 50
    for _ in range(count + 5):
        page.keyboard.press("Tab")
    missed = f":is({controls}):not([data-reached])"
    shown = [one for one in page.locator(missed).all() if one.is_visible()]
    assert [one.evaluate("(e) => e.outerHTML.slice(0, 99)") for one in shown] == []
    assert page.evaluate("unseen") == []


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_texts_are_shown_and_not_run(tmp_path: Path, open_page: Open, width: int) -> None:
    study = write_study(
        tmp_path / "study",
        name=HOSTILE,
        tasks=(HOSTILE, f"{HOSTILE}2"),
        text=HOSTILE,
        expert=HOSTILE,
    )
    opened = open_page(page_of(study), width=width)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_timeout(300)
    assert opened.faults == []
    assert page.evaluate("window.pwned") is None
    assert page.locator("body img, body b, main script").count() == 0
    literal = HOSTILE[: HOSTILE.index(" {% endraw")]
    for place in (
        "h1",
        "#leaderboard caption >> nth=0",
        "#failures td >> nth=0",
        "pre.prompt >> nth=0",
    ):
        assert literal in page.locator(place).inner_text(), place
    assert literal in "".join(page.locator(".answers").all_inner_texts())
    assert "1337" not in page.locator("body").inner_text()
    assert undrawn(opened) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_items_are_filtered_by_task_standing_opponent_and_text(
    pages: dict[str, Path], open_page: Open
) -> None:
    page = open_page(pages["finished"]).page
    status = page.locator("#item-list [role=status]").first
    assert status.inner_text().startswith("60 items. trial 1 against uniform average: ")
    assert page.locator("article").count() == 10
    page.get_by_role("button", name="Next").click()
    assert "page 2 of 6" in page.locator("#item-list").inner_text()
    page.get_by_label("Task", exact=True).select_option(label="zoo_facts")
    assert status.inner_text().startswith("30 items.")
    page.get_by_label("Against", exact=True).select_option(label="base")
    page.get_by_label("Show", exact=True).select_option(label="gained")
    gained = int(status.inner_text().split()[0])
    assert f"against base: {gained} gained" in status.inner_text()
    rows = page.locator("article").first.locator("tbody tr")
    assert rows.nth(0).inner_text().startswith("trial 1\tgold")
    assert "wrong base" in rows.nth(1).inner_text()
    page.get_by_label("Show", exact=True).select_option(label="all items")
    page.get_by_label("Text", exact=True).fill("question 17")
    page.locator("article").nth(1).wait_for(state="detached")
    assert "gold 17" in page.locator("article pre.gold").inner_text()
    page.get_by_label("Text", exact=True).fill("no such text")
    page.locator("article").wait_for(state="detached")
    assert status.inner_text() == "0 items."


def test_the_theme_is_the_systems_until_the_reader_chooses(
    pages: dict[str, Path], open_page: Open
) -> None:
    page = open_page(pages["finished"], scheme="dark").page
    paper = "getComputedStyle(document.body).backgroundColor"
    button = page.get_by_role("button", name="Dark theme")
    dark = page.evaluate(paper)
    assert button.get_attribute("aria-pressed") == "true"
    ink = "getComputedStyle(document.querySelector('.plot svg .xtick text')).fill"
    before = page.evaluate(ink)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(paper) != dark
    assert page.evaluate(ink) != before
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate(paper) != dark


def test_a_running_study_reloads_its_page_unless_the_reader_stops_it(
    tmp_path: Path, open_page: Open
) -> None:
    file = page_of(write_study(tmp_path / "study", until="search"), refresh=True)
    file.write_text(file.read_text().replace('data-refresh="10"', 'data-refresh="1"'))
    page = open_page(file).page
    page.get_by_label("Task", exact=True).select_option(label="zoo_facts")
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    with page.expect_event("load", timeout=10_000):
        pass
    page.wait_for_selector("html[data-ready]", state="attached")
    assert (
        page.get_by_label("Task", exact=True).input_value() == "1"
    )  # what the reader chose is kept
    page.get_by_label("Reload every 1 s").uncheck()
    page.evaluate("document.activeElement.blur(); window.old = true")
    page.wait_for_timeout(1_500)
    assert page.evaluate("window.old") is True


def test_choices_of_a_figure_are_buttons_and_its_numbers_a_table(
    pages: dict[str, Path], open_page: Open
) -> None:
    page = open_page(pages["finished"]).page
    figure = page.locator("#figure-history")
    title = figure.locator(".xtitle")
    before = title.text_content()
    figure.get_by_role("button", name="items").click()
    assert title.text_content() != before
    assert figure.get_by_role("button", name="items").get_attribute("aria-pressed") == "true"
    figure.get_by_text("The numbers").click()
    figure.locator("tbody tr").nth(5).wait_for(state="attached")
    with page.expect_download() as download:
        figure.get_by_role("button", name="Save as SVG").click()
    assert download.value.suggested_filename == "history.svg"
