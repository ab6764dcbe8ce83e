import pytest

from benchmarks.speed._exports import write_tasks
from benchmarks.speed._judge import Judge
from evomerge import zoo
from evomerge.recipe import Recipe, Source

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
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judge")
    counts = {"train": 2, "validation": 14, "test": 12}
    tasks = write_tasks(folder, "generation", ["tools"], counts)
    return Judge([BASE, EXPERT], tasks, folder, "exact_match", ITEMS)


def test_an_expert_beats_its_base_on_its_own_job(judge: Judge) -> None:
    assert judge.score(alone(EXPERT), "search") > judge.score(alone(BASE), "search")
    assert judge.items("search") == 12


def test_a_known_recipe_is_not_scored_again(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    known = judge.score(alone(BASE), "select")
    monkeypatch.setattr(judge.live, "write", lambda _: pytest.fail("scored again"))
    assert judge.score(alone(BASE), "select") == known


def test_weights_score_as_the_recipe_that_made_them(judge: Judge) -> None:
    judge.live.write(alone(EXPERT))
    weights = {name: value.clone() for name, value in judge.live.module.state_dict().items()}
    expected = judge.score(alone(EXPERT), "holdout")
    judge.live.write(alone(BASE))
    assert judge.score_weights(weights, "holdout") == expected
    assert judge.score_weights({k: 0 * v for k, v in weights.items()}, "holdout") == 0 != expected
