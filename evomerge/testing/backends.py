"""What holds for every scoring backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from evomerge.errors import TaskError
from evomerge.scoring import Backend, Scored
from evomerge.tasks import Items

Metrics = Mapping[str, tuple[str, ...]]
OpenBackend = Callable[[Items], Backend]


class BackendSuite:
    """Fixtures to override: `open_backend`, `items`, `metrics` and `model`."""

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """Items → the backend under test."""
        pytest.fail("override the fixture `open_backend`")

    @pytest.fixture
    def items(self) -> Items:
        """Items with a split `search`, of at least two documents a task."""
        pytest.fail("override the fixture `items`")

    @pytest.fixture
    def metrics(self) -> Metrics:
        """Task → metrics that the backend gives, each a plain mean over items."""
        pytest.fail("override the fixture `metrics`")

    @pytest.fixture
    def model(self) -> Any:  # noqa: ANN401 - a module or a folder
        """What `score` is given: a module or a folder, as `takes` says."""
        pytest.fail("override the fixture `model`")

    def test_flags(self, open_backend: OpenBackend, items: Items) -> None:
        backend = open_backend(items)
        assert backend.takes in ("module", "folder")
        assert hasattr(backend, "score_in_blocks") or not backend.races
        assert hasattr(backend, "loss") or not backend.gradients

    def test_one_value_an_item_and_their_mean(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        scored = open_backend(items).score(model, "search", metrics)
        assert list(scored.tasks) == list(metrics)
        assert scored.items == sum(len(items.ids(task, "search")) for task in metrics)
        for task, names in metrics.items():
            scores = scored.tasks[task]
            assert scores.items == items.ids(task, "search")
            for name in names:
                values = scores.metrics[name]
                assert len(values) == len(scores.items)
                assert scores.values[name].value == pytest.approx(sum(values) / len(values))

    def test_the_same_candidate_has_the_same_scores(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        backend = open_backend(items)
        first = backend.score(model, "search", metrics)
        assert backend.score(model, "search", metrics) == first
        assert open_backend(items).score(model, "search", metrics).tasks == first.tasks

    def test_unknown_metrics_are_refused_before_a_model_is_needed(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        backend = open_backend(items)
        backend.check(metrics)
        for task in metrics:
            with pytest.raises(TaskError, match='has no metric "no_such_metric"'):
                backend.check({task: ("no_such_metric",)})
            with pytest.raises(TaskError, match='has no metric "no_such_metric"'):
                backend.score(model, "search", {task: ("no_such_metric",)})

    def test_blocks_add_up_to_the_whole(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        backend: Any = open_backend(items)
        if not backend.races:
            pytest.skip("it scores all items in one go")
        whole: Scored = backend.score(model, "search", metrics)
        counts = {task: len(items.ids(task, "search")) for task in metrics}
        blocks = [
            {task: range(count // 2, count) for task, count in counts.items()},
            {task: range(count // 2) for task, count in counts.items()},
        ]
        first, last = backend.score_in_blocks(model, "search", metrics, blocks)
        assert first.items < last.items == whole.items
        for task, scores in whole.tasks.items():
            assert last.tasks[task].items == scores.items
            for name, values in scores.metrics.items():
                assert last.tasks[task].metrics[name] == pytest.approx(values, rel=1e-4)

    def test_a_teacher_differs_from_itself_by_nothing(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        backend: Any = open_backend(items)
        if not (backend.gradients and isinstance(model, torch.nn.Module)):
            pytest.skip("it has no teachers")
        targets = {task: backend.loss.targets(model, task, mistaken=True) for task in metrics}
        chosen = {task: range(len(found)) for task, found in targets.items()}
        with torch.inference_mode():
            losses = backend.loss.run(
                model, chosen, dict.fromkeys(metrics, 1.0), lambda part: None, targets=targets
            )
        assert losses.items == sum(map(len, chosen.values()))
        assert all(abs(loss) < 1e-3 for loss in losses.tasks.values())

    def test_gradients_reach_the_weights(
        self, open_backend: OpenBackend, items: Items, metrics: Metrics, model: object
    ) -> None:
        backend: Any = open_backend(items)
        if not (backend.gradients and isinstance(model, torch.nn.Module)):
            pytest.skip("it gives no gradients")
        weight = next(model.parameters())
        required = weight.requires_grad
        try:
            weight.requires_grad_(True)
            losses = backend.loss.run(
                model, dict.fromkeys(metrics, range(2)), dict.fromkeys(metrics, 1.0)
            )
            assert losses.items == 2 * len(metrics)
            assert weight.grad is not None
            assert bool(weight.grad.isfinite().all())
        finally:
            weight.grad = None
            weight.requires_grad_(required)
