"""What holds for every merge method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from evomerge.candidate import Recipe, Source
from evomerge.merge.masks import largest, mask_key, row_ranks, uniform
from evomerge.merge.methods.method import Method, Value, Values
from evomerge.merge.methods.tensors import l1_norm
from evomerge.merge.validation import check_recipe

STEP = 1e-6  # of central differences, in float64


class PlainInputs:
    """Plain tensors as a method sees them (`methods.Inputs`); random numbers go by an input's position.

    Args:
        tensors: One an input.
        base: Which of them is the base; None: the method does not tell it apart.
        shared: Values that hold for all inputs.
        own: Values of each input.
        seed: Of random numbers.
        added: Input → what is added to its weight by row, `[rows, 1, ...]`.
        by_row: Whether gradients by the weights of single rows are wanted, too.

    Attributes:
        keeps: Whether there is room for what merge and gradients share.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        base: int | None,
        shared: Values,
        own: Sequence[Values],
        seed: int = 0,
        added: Mapping[int, torch.Tensor] | None = None,
        *,
        by_row: bool = False,
    ) -> None:
        self.name, self.numel = "w", tensors[0].numel()
        self.models = tuple(f"m{index}" for index in range(len(tensors)))
        self.base = base
        self.others = tuple(index for index in range(len(tensors)) if index != base)
        self.shared, self.own = shared, tuple(own)
        self.by_row = by_row
        self._tensors, self._seed, self._added = tensors, seed, added or {}
        self.keeps = False
        self._kept: tuple[torch.Tensor, ...] = ()

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input."""
        return self._tensors[index]

    def weight(self, index: int) -> float | torch.Tensor:
        """Return the weight of an input, by row where something is added to it."""
        own, added = float(self.own[index]["weight"]), self._added.get(index)
        return own if added is None else added + own

    def delta(self, index: int) -> torch.Tensor:
        """Return an input minus the base."""
        assert self.base is not None
        return self._tensors[index] - self._tensors[self.base]

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of a task vector."""
        return l1_norm(self.delta(index))

    def largest(self, index: int, count: int, skipped: int = 0) -> torch.Tensor:
        """Return a task vector's largest entries."""
        delta = self.delta(index)
        return largest(delta.reshape(-1), count, skipped=skipped).view_as(delta)

    def ranks(self, index: int) -> torch.Tensor:
        """Return the places of a task vector's entries by magnitude, row by row."""
        return row_ranks(self.delta(index))

    def fixed(self, what: str, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what depends on the tensors alone; it is not kept."""
        return build()

    def once(
        self, count: int, build: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...] | None:
        """Return what is built for the merge and its gradients, if anything is to be kept."""
        if self.keeps and not self._kept:
            self._kept = build()
            assert len(self._kept) == count
        return self._kept or None

    def uniform(self, index: int) -> torch.Tensor:
        """Return one number in [0, 1) an entry."""
        tensor = self._tensors[index]
        return uniform(mask_key(self._seed, index, "w"), tensor.numel()).view_as(tensor)


def plain_inputs(
    method: Method,
    tensors: Sequence[torch.Tensor],
    own: Sequence[Mapping[str, Value]],
    shared: Values,
    base: int | None = 0,
    seed: int = 0,
    added: Mapping[int, torch.Tensor] | None = None,
    *,
    by_row: bool = False,
) -> PlainInputs:
    """Return inputs of a method from plain tensors; parameters not given take their defaults."""
    given = {k: spec.default for k, spec in method.parameters.items() if spec.default is not None}
    specs = method.parameters
    ours = {name: value for name, value in given.items() if not specs[name].per_source}
    each = {name: value for name, value in given.items() if specs[name].per_source}
    place = base if method.uses_base else None
    return PlainInputs(
        tensors,
        place,
        ours | dict(shared),
        [each | dict(values) for values in own],
        seed,
        added,
        by_row=by_row,
    )


class MethodSuite:
    """Tests of a method. Override `method`; `shared` and `own` where 0.5 is not a valid value."""

    @pytest.fixture
    def method(self) -> Method:
        """Return the method."""
        pytest.fail("override the fixture `method`")

    @pytest.fixture
    def count(self, method: Method) -> int:
        """Return how many models are merged, the base among them."""
        return min(4, (method.max_models or 4) + method.uses_base)

    @pytest.fixture
    def shared(self, method: Method) -> dict[str, Value]:
        """Return values for what holds for all models."""
        takes = method.parameters.items()
        return {k: 0.5 for k, spec in takes if spec.kind == "number" and not spec.per_source}

    @pytest.fixture
    def own(self, method: Method, count: int) -> list[dict[str, Value]]:
        """Return values for each model."""
        takes = [k for k, spec in method.parameters.items() if spec.per_source]
        return [dict.fromkeys(takes, 0.3 + 0.2 * index) for index in range(count)]

    def test_parameters_are_explained_and_their_defaults_legal(self, method: Method) -> None:
        """Each has a line of help, and is required or has a legal default."""
        assert method.needs_base <= method.uses_base
        assert method.max_models is None or method.min_models <= method.max_models
        for key, spec in method.parameters.items():
            assert key not in method.ignored
            assert len(spec.help) > 15
            assert not (spec.required and spec.default is not None)
            if spec.kind == "boolean":
                assert isinstance(spec.default, bool)
            elif spec.default is not None:
                assert spec.kind == "number" or float(spec.default).is_integer()
                assert spec.low is None or spec.low <= spec.default
                assert spec.high is None or spec.default <= spec.high

    def test_a_recipe_with_its_required_parameters_is_taken(
        self, method: Method, count: int, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """The declaration and `METHODS` agree on the method's name and parameters."""
        models = [Source(f"m{index}", parameters=dict(own[index])) for index in range(count)]
        base = "m0" if method.uses_base else None
        check_recipe(Recipe(method.name, tuple(models), base_model=base, parameters=dict(shared)))

    @pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1,), (0,)], ids=str)
    def test_any_shape_is_merged_and_no_input_written(
        self,
        shape: tuple[int, ...],
        method: Method,
        shared: dict[str, Value],
        own: list[dict[str, Value]],
    ) -> None:
        """The result has the inputs' shape and dtype, and is finite."""
        tensors = _random(len(own), shape)
        before = [tensor.clone() for tensor in tensors]
        merged = method.merge(plain_inputs(method, tensors, own, shared))
        assert merged.shape == shape
        assert merged.dtype == torch.float32
        assert torch.isfinite(merged).all()
        assert all(map(torch.equal, tensors, before)), "the method wrote into an input"

    def test_the_seed_alone_decides_what_is_drawn(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """The same seed gives the same bytes; another seed others only where the effect is `masked`."""
        tensors = _random(len(own), (40, 5))
        first, again, other = (
            method.merge(plain_inputs(method, tensors, own, shared, seed=seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert torch.equal(first, other) != _is_masked(method, own, shared)

    def test_models_of_weight_0_leave_the_base(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """With every weight at 0, or `t` at 0, the merged tensor is the base, bit by bit."""
        if not method.needs_base or not {"weight", "t"} & method.parameters.keys():
            pytest.skip("the method has no such base")
        own = [{**values, **({"weight": 0.0} if "weight" in values else {})} for values in own]
        shared = {**shared, **({"t": 0.0} if "t" in shared else {})}
        tensors = _random(len(own), (6, 5))
        merged = method.merge(plain_inputs(method, tensors, own, shared))
        assert torch.equal(merged, tensors[0])

    def test_the_order_of_experts_moves_nothing_but_rounding(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """Models may be listed in any order; of random masks only where nothing is dropped."""
        if _is_masked(method, own, shared):
            own = [{**values, "density": 1.0} for values in own]
        tensors = _random(len(own), (6, 5))
        turned = [0, *range(len(own) - 1, 0, -1)]
        straight = method.merge(plain_inputs(method, tensors, own, shared))
        backwards = method.merge(
            plain_inputs(method, [tensors[i] for i in turned], [own[i] for i in turned], shared)
        )
        assert torch.allclose(straight, backwards, atol=1e-5)

    @pytest.mark.parametrize("flag", [False, True], ids=["off", "on"])
    def test_gradients_are_what_a_small_step_changes(
        self, flag: bool, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """Every differentiable number, one after the other, against central differences in float64."""
        smooth = {name for name, spec in method.parameters.items() if spec.differentiable}
        if method.gradients is None:
            assert not smooth
            pytest.skip("the method has no gradients")
        if "normalize" in method.parameters:
            shared = {**shared, "normalize": flag}
        tensors = _random(len(own), (30, 5), torch.float64)
        (gradient,) = _random(1, (30, 5), torch.float64, seed=9)

        def change(name: str, index: int | None) -> float:
            found = [
                method.merge(_stepped(method, tensors, own, shared, name, index, step))
                for step in (STEP, -STEP)
            ]
            return float(((found[0] - found[1]) * gradient).sum()) / (2 * STEP)

        found = method.gradients(plain_inputs(method, tensors, own, shared), gradient)
        assert set(found.own) | set(found.shared) == smooth
        for name, values in found.own.items():
            for index, value in enumerate(values):
                expected = change(name, index)
                assert value == pytest.approx(expected, rel=1e-6, abs=1e-8), (name, index)
        for name, value in found.shared.items():
            assert value == pytest.approx(change(name, None), rel=1e-6, abs=1e-8), name

    @pytest.mark.parametrize("flag", [False, True], ids=["off", "on"])
    @pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2), (7,)], ids=str)
    def test_gradients_by_row_are_what_a_small_step_of_a_row_changes(
        self,
        shape: tuple[int, ...],
        flag: bool,
        method: Method,
        shared: dict[str, Value],
        own: list[dict[str, Value]],
    ) -> None:
        """Every row's weight, against central differences in float64; they sum to the whole tensor's."""
        if not method.rows:
            pytest.skip("the method's weights do not differ by row")
        assert method.gradients is not None
        if "normalize" in method.parameters:
            shared = {**shared, "normalize": flag}
        tensors, added = _random(len(own), shape, torch.float64), _added(method, len(own), shape)
        (gradient,) = _random(1, shape, torch.float64, seed=9)

        def change(index: int, row: int) -> float:
            found = []
            for step in (STEP, -STEP):
                moved = added[index].clone()
                moved[row] += step
                inputs = plain_inputs(method, tensors, own, shared, added={**added, index: moved})
                found.append(method.merge(inputs))
            return float(((found[0] - found[1]) * gradient).sum()) / (2 * STEP)

        inputs = plain_inputs(method, tensors, own, shared, added=added, by_row=True)
        found = method.gradients(inputs, gradient)
        assert found.rows is not None
        assert found.rows.dtype == torch.float64
        assert found.rows.shape == (len(own), shape[0])
        for index, rows in enumerate(found.rows.tolist()):
            assert found.own["weight"][index] == pytest.approx(sum(rows), rel=1e-9, abs=1e-12)
            for row, value in enumerate(rows):
                expected = change(index, row) if index in added else 0.0
                assert value == pytest.approx(expected, rel=1e-5, abs=1e-7), (index, row)
        inputs = plain_inputs(method, tensors, own, shared, added=added)
        whole = method.gradients(inputs, gradient)
        assert whole.rows is None
        assert whole.own == found.own

    def test_what_a_merge_keeps_for_its_gradients_changes_nothing(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """The same tensor to the bit, and the same gradients, once and again."""
        tensors = _random(len(own), (6, 5), torch.float64)
        (gradient,) = _random(1, (6, 5), torch.float64, seed=9)
        plain, keeping = (plain_inputs(method, tensors, own, shared) for _ in range(2))
        keeping.keeps = True
        for _ in range(2):
            assert torch.equal(method.merge(keeping), method.merge(plain))
            if method.gradients is not None:
                found, expected = (
                    method.gradients(inputs, gradient) for inputs in (keeping, plain)
                )
                assert found.shared == pytest.approx(expected.shared, rel=1e-12)
                for name, values in expected.own.items():
                    assert found.own[name] == pytest.approx(values, rel=1e-9, abs=1e-12)

    def test_weights_by_row_are_weights(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """Each row is merged as by itself; one number for all rows is as if added to the weight."""
        if not method.rows:
            pytest.skip("the method's weights do not differ by row")
        own = [{name: value for name, value in one.items() if name != "density"} for one in own]
        tensors, added = _random(len(own), (6, 5)), _added(method, len(own), (6, 5), torch.float32)
        merged = method.merge(plain_inputs(method, tensors, own, shared, added=added))
        for row in range(6):
            alone = [tensor[row : row + 1] for tensor in tensors]
            more = {index: one[row : row + 1] for index, one in added.items()}
            by_itself = method.merge(plain_inputs(method, alone, own, shared, added=more))
            assert torch.equal(by_itself[0], merged[row])
            moved = [
                {**one, "weight": one["weight"] + float(more[index])} if index in more else one
                for index, one in enumerate(own)
            ]
            as_weights = method.merge(plain_inputs(method, alone, moved, shared))
            assert torch.allclose(by_itself, as_weights, atol=1e-5)
        nothing = {index: torch.zeros(6, 1) for index in added}
        plain = method.merge(plain_inputs(method, tensors, own, shared))
        assert torch.equal(
            method.merge(plain_inputs(method, tensors, own, shared, added=nothing)), plain
        )

    def test_equal_settings_have_equal_effects(
        self, method: Method, shared: dict[str, Value], own: list[dict[str, Value]]
    ) -> None:
        """What float32 cannot tell apart is one merge; other numbers are another."""
        inputs = plain_inputs(method, _random(len(own), (2,)), own, shared)

        def effect(step: float) -> object:
            moved = [
                {k: v if isinstance(v, bool) else v + step * (index + 1) for k, v in values.items()}
                for index, values in enumerate(inputs.own)
            ]
            given = {k: v if isinstance(v, bool) else v + step for k, v in inputs.shared.items()}
            return method.effect(given, moved, inputs.base)

        assert effect(0.0) == effect(1e-12)
        if any(spec.kind != "boolean" for spec in method.parameters.values()):
            assert effect(0.0) != effect(0.01)


def _is_masked(method: Method, own: Sequence[Mapping[str, Value]], shared: Values) -> bool:
    inputs = plain_inputs(method, _random(len(own), (2,)), own, shared)
    return method.effect(inputs.shared, inputs.own, inputs.base).masked


def _added(
    method: Method, count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> dict[int, torch.Tensor]:
    """Return what is added to the weights of every input but the base, by row."""
    rows = (shape[0], *[1] * (len(shape) - 1))
    found = dict(enumerate(_random(count, rows, dtype, seed=5)))
    if method.uses_base:
        found.pop(0)
    return {index: 0.2 * added for index, added in found.items()}


def _random(
    count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def _stepped(
    method: Method,
    tensors: Sequence[torch.Tensor],
    own: Sequence[Mapping[str, Value]],
    shared: Mapping[str, Value],
    name: str,
    index: int | None,
    step: float,
) -> PlainInputs:
    inputs = plain_inputs(method, tensors, own, shared)
    if index is None:
        inputs.shared = {**inputs.shared, name: inputs.shared[name] + step}
    elif name in inputs.own[index]:
        moved = {**inputs.own[index], name: inputs.own[index][name] + step}
        inputs.own = (*inputs.own[:index], moved, *inputs.own[index + 1 :])
    return inputs
