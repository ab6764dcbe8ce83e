from __future__ import annotations

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge
from evomerge.report.coefficients import QUANTILES, coefficients_of
from tests.report import studies


def test_numbers_stand_by_expert_layers_and_component() -> None:
    own = (((0.1, 0.2), (0.3, 0.4)), ((0.5, 0.6), (0.7, 0.8)))
    merge = Merge(
        "ties",
        ("/m/one", "/m/two"),
        "/m/base",
        groups=((0, 2), (2, 6)),
        components=("mlp",),
        own={"weight": own, "density": ((((0.9,) * 2),),)},
        shared={"lambda": ((1.5,), (2.5,))},
    )
    weight, density, shared = coefficients_of(merge)
    assert (weight.parameter, weight.experts) == ("weight", ("one", "two"))
    assert (weight.layers, weight.components) == (("0-2", "2-6"), ("mlp", "rest"))
    assert weight.values.tolist() == [[[0.1, 0.3], [0.5, 0.7]], [[0.2, 0.4], [0.6, 0.8]]]
    for row in merge.numbers():
        if row["parameter"] == "weight":
            place = (
                merge.experts.index(str(row["model"])),
                weight.layers.index(str(row["layers"])),
                weight.components.index(str(row["tensors"])),
            )
            assert weight.values[place] == row["value"]
    assert density.components == ("all",)
    assert density.values.tolist() == [[[0.9], [0.9]]] * 2
    assert (shared.experts, shared.values.tolist()) == (("all",), [[[1.5], [2.5]]])


def test_experts_of_one_name_keep_their_paths() -> None:
    merge = Merge("linear", ("/a/model", "/b/model"), own={"weight": (((0.1, 0.2),),)})
    (weight,) = coefficients_of(merge)
    assert weight.experts == ("/a/model", "/b/model")
    assert (weight.layers, weight.components) == (("all",), ("all",))


def test_rows_are_quantiles_of_weights_and_what_is_added_to_them() -> None:
    (weight,) = coefficients_of(studies.by_row())
    # layer 2 is in the second group, whose weights are 0.2 and 0.4; the tensor is of the first component
    assert weight.components == ("mlp", "rest")
    assert weight.values.shape == (2, 2, 2)
    assert set(weight.rows) == {(0, 1, 0), (1, 1, 0)}
    assert weight.rows[0, 1, 0] == pytest.approx(np.quantile([0.2, 1.2, 2.2], QUANTILES))
    assert weight.rows[1, 1, 0] == pytest.approx([0.9] * 5)


@pytest.mark.parametrize(
    ("tensor", "group"),
    [("model.embed_tokens.weight", 0), ("lm_head.weight", 1), ("model.norm.weight", 1)],
)
def test_what_is_outside_the_layers_goes_with_the_first_or_the_last(
    tensor: str, group: int
) -> None:
    added = Coefficients({tensor: np.zeros((2, 1), np.float32)})
    (weight,) = coefficients_of(studies.merge(coefficients=added))
    assert {place[1] for place in weight.rows} == {group}


def test_other_kinds_have_none_but_a_mixture_its_shared_part() -> None:
    assert [coefficients_of(studies.winner_of(kind)) for kind in ("routed", "mixed", "stack")] == [
        ()
    ] * 3
    (weight,) = coefficients_of(studies.winner_of("mixture"))
    assert weight.values[:, :, 0].tolist() == [[0.1, 0.2], [0.3, 0.4]]
