"""What holds for every figure, on studies of every sort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge.report.figures import FIGURES
from evomerge.report.figures.drawing import shorts
from evomerge.report.material import Material
from evomerge.store import Store
from tests.report import studies

ALWAYS = {"leaderboard"}
SEARCHED = ALWAYS | {"history", "coefficients", "importances", "timeline"}
FINISHED = SEARCHED | {"gap"}
APPLY = {
    "empty": set(),
    "running": SEARCHED,
    "interrupted": FINISHED,
    "merge": FINISHED,
    "rows": FINISHED | {"rows"},
    "routed": FINISHED - {"coefficients"} | {"members", "costs"},
    "mixed": FINISHED - {"coefficients"} | {"members", "costs"},
    "stack": FINISHED - {"coefficients"} | {"members", "costs"},
    "mixture": FINISHED | {"members", "costs"},
    "pareto": FINISHED | {"front"},
    "tradeoff": FINISHED - {"coefficients"} | {"front", "members", "costs"},
    "prompts": FINISHED,
}
"""Kind of study → the figures that it has."""


@pytest.fixture(scope="module", params=APPLY)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def study(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    changes: dict[str, Any] = {}
    if kind == "prompts":
        changes["objectives"] = [
            {
                "prompts": f"/p/{task}.jsonl",
                "task": task,
                "metric": studies.METRIC,
                "teacher": expert,
            }
            for task, expert in zip(studies.TASKS, studies.EXPERTS, strict=True)
        ]
    folder = tmp_path_factory.mktemp(kind) / "out"
    studies.write(folder, "merge" if kind == "prompts" else kind, **changes).close()
    with Store.open(folder, write=False) as store:
        yield store


@pytest.fixture
def drawn(study: Store) -> dict[str, Any]:
    material = Material.of(study)
    found = {name: figure.build(material) for name, figure in FIGURES.items()}
    return {name: one for name, one in found.items() if one is not None}


def test_a_study_has_the_figures_that_apply(kind: str, drawn: dict[str, Any]) -> None:
    assert set(drawn) == APPLY[kind]


def test_figures_are_plain_json(drawn: dict[str, Any]) -> None:
    for one in drawn.values():
        assert json.loads(json.dumps(one, allow_nan=False)) == one
        assert set(one) == {"data", "layout"}
        assert one["layout"]["paper_bgcolor"] == one["layout"]["plot_bgcolor"] == "rgba(0, 0, 0, 0)"


def test_plotly_knows_every_property(drawn: dict[str, Any]) -> None:
    objects = pytest.importorskip("plotly.graph_objects")
    for one in drawn.values():
        assert len(objects.Figure(one).data) == len(one["data"])


def test_every_axis_makes_room_for_its_labels(drawn: dict[str, Any]) -> None:
    for one in drawn.values():
        axes = [each for name, each in one["layout"].items() if name.startswith(("xaxis", "yaxis"))]
        assert axes
        assert all(each["automargin"] for each in axes)
        labels = [text for each in axes for text in each.get("ticktext", ())]
        assert all(len(text) <= 27 for text in labels)


def test_choices_hold_something_for_every_trace(drawn: dict[str, Any]) -> None:
    for one in drawn.values():
        for menu in one["layout"].get("updatemenus", ()):
            assert len(menu["buttons"]) > 1
            for button in menu["buttons"]:
                for key, values in button["args"][0].items():
                    assert len(values) == len(one["data"])
                    if key in ("x", "y"):
                        lengths = [len(trace["y"]) for trace in one["data"]]
                        assert [len(each) for each in values] == lengths


def test_every_figure_says_what_it_shows() -> None:
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.title[0].isupper()
        assert figure.about.endswith(".")


def test_text_from_outside_is_shown_not_read(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    models = {
        "base": "/m/base",
        "experts": [{"model": "/m/x", "name": bad}, {"model": "/m/y", "name": "y"}],
    }
    with studies.create(tmp_path / "out", models=models) as store:
        studies.record(store, "base", "base", "search", (1, 1))
        studies.record(store, bad, "expert", "search", (9, 1))
        studies.some_trials(store, "merge")
        material = Material.of(store)
        text = json.dumps([figure.build(material) for figure in FIGURES.values()])
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "NaN in &lt;layer&gt; 3" in text


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["facts", "tools"], ["facts", "tools"]),
        (
            ["Llama-3.1-8B-Instruct-math", "Llama-3.1-8B-Instruct-code", "facts"],
            ["…B-Instruct-math", "…B-Instruct-code", "facts"],
        ),
        (["same"] * 2, ["same"] * 2),
        (["a" * 20 + "b" * 20 + "c" * 20, "a" * 20 + "d" + "b" * 19 + "c" * 20], None),
    ],
)
def test_unlike_names_have_unlike_labels(names: list[str], labels: list[str] | None) -> None:
    found = shorts(names, 16)
    assert len(set(found)) == len(set(names))
    if labels is not None:
        assert found == labels
