import pytest

from benchmarks.speed._exports import write_tasks
from benchmarks.speed._zoo_scorer import ZooScorer
from evomerge import zoo
from evomerge.candidate import Merge, Recipe, Source

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BASE, EXPERT = (str(zoo.resolve(f"zoo:{name}")) for name in ("base", "tools"))
ITEMS = {
    "search": 12,
    "select": 6,
    "holdout": 8,
    "from": {"search": "test", "select": "validation", "holdout": "validation"},
}


def alone(model: str) -> Recipe:
    return Recipe(method="passthrough", models=(Source(model),), dtype="float32")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ZooScorer:
    folder = tmp_path_factory.mktemp("scorer")
    counts = {"train": 2, "validation": 14, "test": 12}
    tasks = write_tasks(folder, "generation", ["tools"], counts)
    return ZooScorer([BASE, EXPERT], tasks, folder, "exact_match", ITEMS)


def test_an_expert_beats_its_base_on_its_own_job(scorer: ZooScorer) -> None:
    assert scorer.score(alone(EXPERT), "search") > scorer.score(alone(BASE), "search")
    assert scorer.items("search") == 12


def test_a_merge_is_scored_as_its_recipe(scorer: ZooScorer) -> None:
    merge = Merge("passthrough", (EXPERT,), dtype="float32")
    assert scorer.score(merge, "select") == scorer.score(merge.recipe(), "select")


def test_a_known_recipe_is_not_scored_again(
    scorer: ZooScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = scorer.score(alone(BASE), "select")
    monkeypatch.setattr(scorer.live, "write", lambda _: pytest.fail("scored again"))
    assert scorer.score(alone(BASE), "select") == known


def test_weights_score_as_the_recipe_that_made_them(scorer: ZooScorer) -> None:
    scorer.live.write(alone(EXPERT))
    weights = {name: value.clone() for name, value in scorer.live.module.state_dict().items()}
    expected = scorer.score(alone(EXPERT), "holdout")
    scorer.live.write(alone(BASE))
    assert scorer.score_weights(weights, "holdout") == expected
    assert scorer.score_weights({k: 0 * v for k, v in weights.items()}, "holdout") == 0 != expected
