"""A kind is one file and one line: a campaign with it searches, resumes, saves and reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from safetensors.torch import load_file

import evomerge
from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.cli import run_command
from evomerge.config import Campaign, SpaceSettings
from evomerge.errors import CampaignError, MergeError
from evomerge.kinds import KINDS, Kind
from evomerge.space import Family
from evomerge.store import Store
from evomerge.testing.kinds import KindSuite
from tests.kinds.single import Single, SingleBuilder, SingleKind
from tests.small_campaign import TEXT

SPACE = "  kind: single\n"
MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "single", SingleKind())


def campaign(folder: Path, space: str = SPACE) -> Campaign:
    text = TEXT.replace(MERGES, space).replace("sampler: cmaes", "sampler: random")
    (folder / "c.yaml").write_text(text)
    return Campaign.load(folder / "c.yaml")


class TestSingle(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "single"

    @pytest.fixture
    def kind(self) -> SingleKind:
        return SingleKind()


class TestMerge(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "merge"

    @pytest.fixture
    def kind(self) -> Kind:
        return KINDS["merge"]

    @pytest.fixture(
        params=[
            {"method": "task_arithmetic", "layers": 2},
            {"method": ["linear", "ties"], "layers": "each", "components": ["mlp"]},
            {"method": "dare_linear", "subsets": True},
        ],
        ids=["one method", "several", "subsets"],
    )
    def settings(self, request: pytest.FixtureRequest) -> SpaceSettings:
        density = {"density": 0.5} if request.param["method"] != "task_arithmetic" else {}
        weight = {"low": 0.1, "high": 1.2}
        return SpaceSettings(parameters={"weight": weight, **density}, **request.param)


@pytest.mark.usefixtures("single")
def test_a_campaign_of_another_kind_is_searched_resumed_saved_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evomerge.search(campaign(tmp_path))
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
        known = [row for row in store.evaluations() if row.split == "search"]
    experts = {row.candidate.model_names(): row for row in known if row.kind == "expert"}
    assert len(trials) == 6
    for trial in trials:
        assert isinstance(trial.candidate, Single)
        expert = experts[trial.candidate.model_names()]
        assert trial.outcome is not None
        assert trial.outcome.scores == expert.outcome.scores

    result = evomerge.resume(result.folder, trials=2)
    with Store.open(result.folder, write=False) as store:
        assert len(store.trials()) == 8
    best = result.best.candidate
    assert isinstance(best, Single)
    saved = load_file(result.folder / "best" / "model.safetensors")
    for name, tensor in load_file(Path(best.model) / "model.safetensors").items():
        assert saved[name].equal(tensor)
    board = json.loads((result.folder / "leaderboard.json").read_text())
    winner = next(row for row in board["rows"] if row["kind"] == "winner")
    assert "kind: single" in winner["recipe"]
    assert run_command(["report", str(result.folder), "--trials"]) == 0
    assert "single" in capsys.readouterr().out


@pytest.mark.usefixtures("single")
def test_keys_that_a_kind_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CampaignError, match=r'c.yaml:\d+: space.layers: the kind "single" takes no layers'
    ):
        evomerge.check(campaign_file(tmp_path, SPACE + "  layers: 2\n"))


def test_an_unknown_kind_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        CampaignError, match=r'space.kind: unknown kind "merg"; did you mean "merge"'
    ):
        evomerge.check(campaign_file(tmp_path, "  kind: merg\n"))


def test_results_of_a_kind_that_is_not_installed_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as installed:
        installed.setitem(KINDS, "single", SingleKind())
        settings, space = campaign(tmp_path), {"one": FloatDistribution(0.0, 1.0)}
        folder = Path(settings.out)
        with Store.create(folder, settings, {}, directions=["maximize"]) as store:
            entry = Entry("trial 0", Single("/a", "float32"), 0)
            store.asked(entry, {"one": 0.5}, space)
            store.record(Job(Entry("a", entry.candidate, role="expert"), "search"), Outcome())
    assert run_command(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'space.kind: unknown kind "single"' in line


def test_a_merge_needs_a_method(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"space.method: is missing"):
        campaign(tmp_path, "  kind: merge\n  parameters: {weight: 1.0}\n")


def test_a_kind_has_no_gradients_unless_it_says_how() -> None:
    with pytest.raises(MergeError, match="single has no gradients"):
        SingleBuilder(None).gradients(Single("/a", "float32"), lambda module: False)


def campaign_file(folder: Path, space: str) -> Path:
    campaign(folder, space)
    return folder / "c.yaml"


@pytest.mark.parametrize("expert", ["/two", "/other+/two"])
def test_core_space_is_for_adapters_on_the_base(expert: str) -> None:
    parameters = {"weight": {"low": 0.0, "high": 1.0}, "core_space": True}
    settings = SpaceSettings.model_validate({"method": "ties", "parameters": parameters})
    adapters = Family("/base", {"one": "/base+/one", "two": "/base+/two"}, 4, "float32")
    made = KINDS["merge"].space(settings, adapters, 0)
    point = dict.fromkeys(made.distributions, 0.5)
    assert made.candidate(point).recipe().parameters["core_space"] is True
    assert not made.takes_rows  # a core matrix has other rows than its tensor
    mixed = replace(adapters, experts={**adapters.experts, "two": expert})
    with pytest.raises(
        CampaignError, match=r"space\.parameters\.core_space: .*two is a full model"
    ):
        KINDS["merge"].space(settings, mixed, 0)
