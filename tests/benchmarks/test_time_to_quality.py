import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.speed import _campaigns, _mergekit_evolve, time_to_quality
from benchmarks.speed._fine_tuning import Tuned
from benchmarks.speed._processes import Line
from benchmarks.speed._trajectories import Step
from evomerge import candidate as recipe
from evomerge import zoo
from evomerge.candidate import Recipe, Source

EVOLVED = """
merge_method: task_arithmetic
base_model: {folder}/base
models:
  - model: {folder}/facts
    parameters: {{weight: 0.25}}
dtype: bfloat16
parameters: {{int8_mask: true, normalize: false}}
"""


def alone(name: str) -> Recipe:
    return Recipe(method="passthrough", models=(Source(name),))


HOLDOUT = {"start": 0.5, "better": 0.6, "winner": 0.8, "naive": 0.55, "settings": 0.6}


class FakeJudge:
    live = SimpleNamespace()

    def items(self, split: str) -> int:
        return 320

    def score(self, made: Recipe, split: str) -> float:
        assert split == "holdout"
        if made.method == "task_arithmetic":  # the peer's, with the models' names that are ours
            assert str(zoo.resolve("zoo:facts")) in made.model_names()
            return 0.6
        return HOLDOUT[made.models[0].model]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _campaigns.Progressed(ready=10.0, searching=14.0, told=[(16.0, 1), (18.0, 2)])
    monkeypatch.setattr(_campaigns, "search", lambda *_: ran)

    def of_campaign(_: Path, seconds: list[float], *, baselines: bool) -> list[Step]:
        assert seconds == ([6.0, 8.0] if baselines else [2.0, 4.0])
        more = 4800 * baselines
        return [
            Step(320 + more, seconds[0], 0.5, alone("start")),
            Step(640 + more, seconds[1], 0.7, alone("better")),
        ]

    module = time_to_quality
    monkeypatch.setattr(module, "of_campaign", of_campaign)
    monkeypatch.setattr(module, "best_of_campaign", lambda _: (alone("winner"), alone("naive")))
    monkeypatch.setattr(module.Bench, "scorer", FakeJudge())
    settings = [Step(320, 0.0, 0.6, alone("settings"))]
    monkeypatch.setattr(module, "with_mergekit_settings", lambda *_: settings)
    monkeypatch.setattr(_mergekit_evolve, "build_environment", lambda _: Path("/peer/bin"))
    monkeypatch.setattr(_mergekit_evolve, "check_agreement", lambda *_: None)


def evolve(
    _programs: Path, settings: dict, _tasks: Path, storage: Path, *, watch: object, **_: object
) -> _mergekit_evolve.Timeline:
    assert settings["genome"]["filters"] == ["self_attn", "mlp"]
    storage.mkdir()
    folder = Path(settings["genome"]["base_model"]).parent
    (storage / _mergekit_evolve.BEST).write_text(EVOLVED.format(folder=folder))
    timeline = _mergekit_evolve.Timeline(begun={1: 30.0, 2: 31.0}, ended={1: [], 2: []})
    timeline.ended = {1: [(230.0, 1.0)], 2: [(430.0, 1.0)]}
    assert not watch(timeline, Line(1e6, "nothing found yet"))
    assert not watch(timeline, Line(250.0, _mergekit_evolve.NEW_BEST))
    assert watch(timeline, Line(1e6, "too late"))
    return timeline


def told(folder: Path, *more: str) -> dict:
    out = folder / "out.json"
    time_to_quality.main(["--out", str(out), "--seeds", "0", "--evaluations", "20", *more])
    return json.loads(out.read_text())


def test_items_are_compared_at_equal_holdout(tmp_path: Path, bench: None) -> None:
    found = told(tmp_path, "--skip", "peer", "tuning")["items"]
    assert found["full"] == 20 * 320
    assert found["median_items"] == 640
    assert found["median_items_with_baselines"] == 5440
    assert found["seeds"][0]["settings_holdout"] == 0.6


def test_a_goal_that_is_never_reached_is_no_number(
    tmp_path: Path,
    bench: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(HOLDOUT, "settings", 0.7)
    found = told(tmp_path, "--skip", "peer", "tuning")["items"]
    assert found["median_items"] is None
    assert "never" in capsys.readouterr().out


def test_the_peers_best_is_judged_by_our_engine(
    tmp_path: Path,
    bench: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_mergekit_evolve, "evolve", evolve)
    found = told(tmp_path, "--skip", "items", "tuning")["peer"]
    assert found["peer"]["seconds"] == 400.0
    assert found["peer"]["evaluations"] == 2
    assert found["peer"]["path"] == [[220.0, 640, 0.0, 0.6]]
    assert found["ours"]["seconds_to_peer"] == 4.0
    assert found["ours"]["seconds_to_peer_with_baselines"] == 8.0
    out = capsys.readouterr().out
    assert "1/100.0 of the peer's" in out
    assert "ends +0.2000" in out


def test_tuning_gets_as_long_as_the_search_and_its_items(
    tmp_path: Path, bench: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fine_tune(_: object, start: Recipe, items: list[zoo.Item], seconds: float) -> Tuned:
        assert start == alone("naive")
        assert len(items) == 5 * time_to_quality.ITEMS["search"]
        return Tuned(1e-4, seconds, 3, 0.1, 0.2)

    monkeypatch.setattr(time_to_quality, "fine_tune", fine_tune)
    monkeypatch.setattr(time_to_quality.torch, "set_num_threads", lambda _: None)
    found = told(tmp_path, "--skip", "items", "peer")["tuning"]
    assert found["tuned"]["seconds"] == 8.0
    assert (found["naive"], found["ours"]) == (0.55, 0.8)


def test_the_space_has_sixty_dimensions(tmp_path: Path) -> None:
    options = time_to_quality._options([])
    assert len(time_to_quality.Bench(tmp_path, options)._space().distributions) == 60


def test_a_configuration_of_the_peer_is_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text(EVOLVED.format(folder=tmp_path))
    assert recipe.load(file).renamed(lambda name: Path(name).name).base_model == "base"
