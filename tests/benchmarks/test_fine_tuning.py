from pathlib import Path

import pytest

from benchmarks.speed._exports import write_tasks
from benchmarks.speed._fine_tuning import SHARES, fine_tune
from benchmarks.speed._zoo_scorer import ZooScorer
from evomerge import zoo
from evomerge.candidate import Recipe, Source

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BASE = str(zoo.resolve("zoo:base"))
ITEMS = {
    "search": 12,
    "select": 12,
    "holdout": 12,
    "from": {"search": "test", "select": "validation", "holdout": "validation"},
}
START = Recipe(method="passthrough", models=(Source(BASE),), dtype="float32")


@pytest.fixture
def scorer(tmp_path: Path) -> ZooScorer:
    counts = {"train": 2, "validation": 24, "test": 12}
    tasks = write_tasks(tmp_path, "generation", ["tools"], counts)
    return ZooScorer([BASE], tasks, tmp_path, "exact_match", ITEMS)


def test_rate_and_length_are_chosen_on_select(
    scorer: ZooScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[str, float]] = []
    genuine = scorer.score_weights

    def score(weights: object, split: str) -> float:
        scored.append((split, genuine(weights, split)))
        return scored[-1][1]

    monkeypatch.setattr(scorer, "score_weights", score)
    items = zoo.items("tools", "test", 12)
    found = fine_tune(scorer, START, items, 2.0, rates=(1e-12, 1e-3))
    selects = [value for split, value in scored if split == "select"]
    assert len(selects) == 2 * len(SHARES)
    assert found.select == max(selects)
    assert ("holdout", found.holdout) == scored[-1]
    assert found.steps > 0
    # a rate of next to nothing leaves the base as it is; a good one learns the format of the answers
    assert selects[0] == selects[3] == scorer.score(START, "select")


def test_training_does_not_touch_the_live_model(scorer: ZooScorer) -> None:
    before = scorer.score(START, "holdout")
    fine_tune(scorer, START, zoo.items("tools", "test", 12), 0.2, rates=(1e-2,))
    scorer.live.write(START)
    weights = scorer.live.module.state_dict()
    assert scorer.score_weights(weights, "holdout") == before
    assert not any(parameter.requires_grad for parameter in scorer.live.module.parameters())


def test_no_rate_is_no_training(scorer: ZooScorer) -> None:
    with pytest.raises(ValueError, match="no learning rate"):
        fine_tune(scorer, START, [], 0.1, rates=())
