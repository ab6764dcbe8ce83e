"""What the winner is made of: heat maps, boxes, members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evomerge.report.figures.coefficients import coefficients_figure, rows_figure
from evomerge.report.figures.drawing import Drawing
from evomerge.report.figures.members import members_figure
from evomerge.report.material import Material
from tests.report import studies


def drawn_of(folder: Path, kind: str, name: str) -> Drawing:
    figures = {"map": coefficients_figure, "rows": rows_figure, "members": members_figure}
    with studies.write(folder / "out", kind) as store:
        found = figures[name](Material.of(store))
    assert found is not None
    return found


def test_the_heat_map_shows_the_winners_numbers(tmp_path: Path) -> None:
    (trace,) = drawn_of(tmp_path, "merge", "map")["data"]
    assert trace["y"] == ["tools", "facts"]
    assert [one.strip() for one in trace["x"]] == ["0-2", "2-4"]
    assert trace["z"] == [[0.1, 0.2], [0.3, 0.4]]
    assert (trace["zmin"], trace["zmax"]) == (0.0, 0.4)


def test_a_component_is_a_map_of_its_own(tmp_path: Path) -> None:
    drawn = drawn_of(tmp_path, "rows", "map")
    assert [trace["name"] for trace in drawn["data"]] == ["mlp", "rest"]
    assert [trace.get("yaxis") for trace in drawn["data"]] == [None, "y2"]
    assert [one["text"] for one in drawn["layout"]["annotations"]] == ["<b>mlp</b>", "<b>rest</b>"]


def test_boxes_are_the_quantiles_of_rows(tmp_path: Path) -> None:
    drawn = drawn_of(tmp_path, "rows", "rows")
    first = drawn["data"][0]
    assert (first["name"], first["x"]) == ("tools", ["2-4"])
    expected = np.quantile([0.2, 1.2, 2.2], [0.05, 0.25, 0.5, 0.75, 0.95])
    ends = ("lowerfence", "q1", "median", "q3", "upperfence")
    assert [first[end][0] for end in ends] == pytest.approx(expected, abs=1e-4)


def test_routing_is_the_leaderboards(tmp_path: Path) -> None:
    drawn = drawn_of(tmp_path, "routed", "members")
    assert drawn["layout"]["yaxis"]["ticktext"] == ["tools", "facts"]
    assert {trace["name"]: trace["x"] for trace in drawn["data"]} == {
        "tools": [1.0, 0.25],
        "facts": [0.0, 0.75],
    }


def test_a_mix_shows_its_weights_a_stack_its_path_a_mixture_its_gates(tmp_path: Path) -> None:
    (mix,) = drawn_of(tmp_path / "mix", "mixed", "members")["data"]
    assert (mix["text"], mix["x"]) == (["tools", "facts"], [0.25, 0.75])
    (path,) = drawn_of(tmp_path / "stack", "stack", "members")["data"]
    assert (path["y"], path["text"], path["customdata"]) == (
        [0, 1, 0],
        ["0", "2", "3"],
        [1, 1, 0.5],
    )
    (gates,) = drawn_of(tmp_path / "mixture", "mixture", "members")["data"]
    assert gates["y"] == [0.9, 0.75]
