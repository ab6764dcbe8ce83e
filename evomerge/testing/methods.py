"""What holds for every merge method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import pytest
import torch

from evomerge.candidate import Recipe, Source
from evomerge.merge import masks
from evomerge.merge.methods import METHODS, task_vectors, tensors
from evomerge.merge.methods.method import Method, Value, Values
from evomerge.merge.validation import check_recipe
from evomerge.testing.inputs import PlainInputs, plain_inputs

__all__ = ["MethodSuite", "PlainInputs", "plain_inputs"]

STEP = 1e-6  # of central differences, in float64


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
        self,
        method: Method,
        count: int,
        shared: dict[str, Value],
        own: list[dict[str, Value]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The declaration and `METHODS` agree on the method's name and parameters.

        A method that a campaign's file declares is put there as by that campaign.
        """
        if method.name not in METHODS:
            monkeypatch.setitem(METHODS, method.name, method)
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

    @pytest.mark.parametrize("held", [True, False], ids=["held", "recomputed"])
    def test_memory_is_what_is_stated(
        self,
        held: bool,
        method: Method,
        shared: dict[str, Value],
        own: list[dict[str, Value]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Merge and gradients allocate no more tensors at once; each input is converted when it is read."""
        monkeypatch.setattr(tensors, "CHUNK", 1 << 9)  # pieces are small beside whole tensors
        monkeypatch.setattr(tensors, "PIECES", {"cpu": 1 << 9})
        monkeypatch.setattr(masks, "CHUNK", 1 << 8)
        if not held:
            monkeypatch.setattr(task_vectors, "HELD", 0)
        stored = [one.bfloat16() for one in _random(len(own), (128, 512))]
        inputs = plain_inputs(method, stored, own, shared)
        inputs.dtype = torch.float32
        (gradient,) = _random(1, (128, 512), seed=9)
        taken = _peak(lambda: method.merge(inputs))
        if method.gradients is not None:
            of = method.gradients
            taken = max(taken, _peak(lambda: of(inputs, gradient)))
        vectors = len(inputs.others) if method.elects and held else 1
        more = method.recomputing if method.elects and not held else 0
        stated = 4 * inputs.numel * (vectors + method.temporaries + more)
        if method.matrix_bytes is not None:
            stated = max(stated, method.matrix_bytes(128, 512, len(inputs.others)))
        assert taken <= 1.02 * stated

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


def _peak(run: Callable[[], object]) -> int:
    """Return the most bytes that torch had allocated at once on the CPU, beyond what it had before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as found:
        run()
    events = found.profiler.kineto_results.events()
    memory = sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")
    return max(accumulate(nbytes for _, nbytes in memory), default=0)
