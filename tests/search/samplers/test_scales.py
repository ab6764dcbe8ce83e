from __future__ import annotations

import numpy as np
import pytest

from evomerge.candidate import Coefficients
from evomerge.search.samplers.descent import FIRST_STEP
from evomerge.search.samplers.scales import STEPS, FineScales

GENERATOR = np.random.default_rng(0)


def gradients() -> dict[str, np.ndarray]:
    return {
        name: GENERATOR.normal(size=shape).astype(np.float32)
        for name, shape in {"wide": (2, 5), "norm": (2, 3)}.items()
    }


def test_a_first_step_goes_as_far_as_its_scale_says_whatever_the_gradient_is() -> None:
    rows, both = gradients(), FineScales(("tensor", "row"))
    both.learn(rows, FIRST_STEP, 1)
    found = both.coefficients
    assert found is not None
    for name, gradient in rows.items():
        by_tensor = -STEPS["tensor"] * np.sign(gradient.sum(axis=1, keepdims=True))
        by_row = -STEPS["row"] * np.sign(gradient)
        np.testing.assert_allclose(found.tables[name], FIRST_STEP * (by_tensor + by_row), rtol=1e-5)


def test_each_scale_takes_part_by_name() -> None:
    rows = gradients()
    nothing, tensor, row = FineScales(()), FineScales(("tensor",)), FineScales(("row",))
    for one in (nothing, tensor, row):
        one.learn(rows, FIRST_STEP, 1)
    assert nothing.coefficients is None
    assert tensor.coefficients is not None
    assert {table.shape for table in tensor.coefficients.tables.values()} == {(2, 1)}
    assert row.coefficients is not None
    assert row.coefficients.tables["wide"].shape == (2, 5)


def test_it_is_adam_as_torch_has_it() -> None:
    torch = pytest.importorskip("torch")
    drawn = [gradients()["wide"] for _ in range(12)]
    own = FineScales(("row",))
    parameter = torch.nn.Parameter(torch.zeros(2, 5))
    adam = torch.optim.Adam([parameter], lr=STEPS["row"] * FIRST_STEP, eps=1e-12)
    for step, gradient in enumerate(drawn, 1):
        own.learn({"wide": gradient}, FIRST_STEP, step)
        parameter.grad = torch.tensor(gradient)
        adam.step()
    assert own.coefficients is not None
    np.testing.assert_allclose(
        own.coefficients.tables["wide"], parameter.detach().numpy(), rtol=1e-4, atol=1e-6
    )


def test_a_restored_one_goes_on_exactly() -> None:
    live = FineScales(("tensor", "row"))
    live.learn(gradients(), FIRST_STEP, 1)
    again = FineScales(("tensor", "row"))
    again.restore(live.state)
    rows = gradients()
    for one in (live, again):
        one.learn(rows, FIRST_STEP, 2)
    assert again.coefficients == live.coefficients
    assert again.state == live.state


@pytest.mark.parametrize("scales", [("tensor", "row"), ("row",)])
def test_coefficients_given_out_do_not_change_afterwards(scales: tuple[str, ...]) -> None:
    live = FineScales(scales)
    live.learn(gradients(), FIRST_STEP, 1)
    given = live.coefficients
    assert given is not None
    before = Coefficients({name: table.copy() for name, table in given.tables.items()})
    live.learn(gradients(), FIRST_STEP, 2)
    assert given.digest == before.digest
