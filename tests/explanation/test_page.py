from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from evomerge.explanation.explanation import Explanation
from evomerge.explanation.page import explanation_page
from tests.explanation.made_up import made_up

HOSTILE = "<script>alert(1)</script></style>"


def plots(page: str) -> dict[str, Any]:
    (block,) = re.findall(r'id="data">([^<]*)<', page)
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(block)))["plots"]
    return found


def test_heat_maps_are_the_numbers_of_the_explanation() -> None:
    drawn = {name: one["data"][0] for name, one in plots(explanation_page(made_up())).items()}
    assert list(drawn) == ["experts", "groups", "gradients", "states", "cosines"]
    assert drawn["experts"]["z"] == [[0.5, -0.02], [-0.3, 0.1]]
    assert drawn["experts"]["y"] == ["sums", "poems"]
    assert drawn["groups"]["z"] == [[pytest.approx(0.15), None], [None, pytest.approx(0.25)]]
    assert drawn["gradients"]["z"] == [[-1.0, -2.0], [0.5, 0.25]]
    assert drawn["states"]["z"] == [[0.1, 0.6]]
    assert drawn["states"]["x"] == ["embeddings ", "0 "]
    assert drawn["cosines"]["z"] == [[-0.1, 0.25]]
    for one in drawn.values():
        assert one["zmax"] >= max(abs(v) for row in one["z"] for v in row if v is not None)
        assert one["zmin"] in (0.0, -one["zmax"])


def test_texts_from_outside_are_shown_not_run() -> None:
    found = made_up()
    example = replace(found.changes[0].examples_gained[0], prompt=HOSTILE, task=HOSTILE)
    changes = replace(found.changes[0], against=HOSTILE, examples_gained=(example,))
    page = explanation_page(replace(found, winner=HOSTILE, changes=(changes,), summary=HOSTILE))
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("</style>") == 1


def test_what_does_not_apply_has_no_section() -> None:
    bare = Explanation("c", "trial 0", "stack of 8", ("t",), None, {}, notes=("None here.",))
    page = explanation_page(replace(bare, summary="In short."))
    assert 'id="data"' not in page
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections == ["summary", "control"]
    assert "None here." in page
