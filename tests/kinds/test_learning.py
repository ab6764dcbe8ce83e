"""Kinds whose candidates learn, and whose members answer items apart, through a whole campaign."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import evomerge
from evomerge.candidate.trial import SPLITS, Entry, Job
from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.kinds import KINDS
from evomerge.preflight.check import preflight
from evomerge.run import setup_of
from evomerge.store import Store
from evomerge.tasks import Items
from evomerge.testing.kinds import KindSuite
from evomerge.workers import SerialPool
from evomerge.workers.evaluator import Evaluator
from tests.kinds.pair import Pair, PairKind
from tests.small_campaign import TEXT, changed

MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]


class TestPair(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "pair"

    @pytest.fixture
    def kind(self) -> PairKind:
        return PairKind()


@pytest.fixture(autouse=True)
def _pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "pair", PairKind())


def campaign(folder: Path, more: str = "") -> Campaign:
    text = TEXT.replace(MERGES, "  kind: pair\n").replace("sampler: cmaes", "sampler: random")
    (folder / "c.yaml").write_text(text + more)
    return Campaign.load(folder / "c.yaml")


def test_what_is_learnt_is_stored_selected_and_scored_by_what_is_known(tmp_path: Path) -> None:
    settings = campaign(tmp_path)
    result = evomerge.search(settings)
    with Store.open(result.folder, write=False) as store:
        trials, rows = store.trials(), store.evaluations()
    assert len(trials) == 6
    alone = {(row.candidate.text(), row.split): row.outcome for row in rows}
    evaluator = Evaluator(setup_of(preflight(settings)))
    fitted = [(one.candidate, one.outcome, "search") for one in trials]
    fitted += [(one.candidate, one.outcome, one.split) for one in rows if one.number is not None]
    assert {split for *_, split in fitted} == set(SPLITS)
    for made, outcome, split in fitted:
        assert isinstance(made, Pair)
        assert made.means is not None
        assert outcome is not None
        members = [alone.get((one.text(), split)) for one in made.members.values()]
        for task, scores in outcome.scores.items():
            routes = outcome.routes[task]
            assert len(routes) == len(scores.items)
            for metric, values in scores.metrics.items():
                for n, (value, route) in enumerate(zip(values, routes, strict=True)):
                    member = members[route]
                    assert member or (split, route) == ("holdout", 2)  # only the tuned λ is read
                    assert member is None or value == member.scores[task].metrics[metric][n]
                assert scores.values[metric].value == pytest.approx(sum(values) / len(values))
        metrics = {task: tuple(scores.metrics) for task, scores in outcome.scores.items()}
        job = Job(Entry("again", made, 0), split, metrics)  # type: ignore[arg-type]
        again = evaluator.evaluate(job)  # without what is known
        assert again.candidate is None
        assert again.routes == outcome.routes
        assert again.read == outcome.read
        assert all(sum(outcome.read[task]) > 0 for task in outcome.scores)
        for task, scores in outcome.scores.items():
            for metric, values in scores.metrics.items():
                assert again.scores[task].metrics[metric] == pytest.approx(values, abs=1e-5)
    assert {len(one.candidate.scored_members) for one in trials} == {3}  # the best merge is one
    assert set(result.leaderboard.routing) == {"select", "holdout"}
    assert result.leaderboard.to_json()["routing"].keys() == {"select", "holdout"}
    assert "who answers" in (result.folder / "leaderboard.md").read_text()
    means = {one.candidate.means.digest for one in trials}  # type: ignore[attr-defined]
    assert len(means) == 1


def test_members_that_the_store_knows_are_not_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    own = KINDS["merge"].opened

    def counted(*arguments: object) -> object:
        builder = own(*arguments)  # type: ignore[arg-type]
        build = builder.build
        builder.build = lambda merge: built.append(merge.text()) or build(merge)  # type: ignore[func-returns-value, method-assign]
        return builder

    monkeypatch.setattr(KINDS["merge"], "opened", counted)
    result = evomerge.search(campaign(tmp_path))
    with Store.open(result.folder, write=False) as store:
        rows = store.evaluations()
        failed = [one for one in store.trials() if one.state != "complete"]
    assert not failed
    scored = [one.candidate.text() for one in rows if one.candidate.kind == "merge"]
    (winner,) = (one.candidate for one in rows if one.kind == "winner" and one.split == "holdout")
    assert Counter(built) - Counter(scored) <= Counter([winner.scored_members["best"].text()])
    assert not Counter(scored) - Counter(built)


def test_an_interrupted_campaign_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = campaign(tmp_path)
    whole = evomerge.search(changed(settings, tmp_path / "whole", deterministic=True))
    submit = SerialPool.submit

    def killed(self: SerialPool, work: Job) -> None:
        if isinstance(work, Job) and work.entry.number == 3:
            raise KeyboardInterrupt
        submit(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(SerialPool, "submit", killed)
        with pytest.raises(KeyboardInterrupt):
            evomerge.search(changed(settings, tmp_path / "cut", deterministic=True))
    cut = evomerge.resume(tmp_path / "cut")
    found = []
    for result in (whole, cut):
        with Store.open(result.folder, write=False) as store:
            found.append([(t.params, t.form, t.candidate, t.outcome) for t in store.trials()])
    for (params, form, made, one), (other_params, other_form, other_made, other) in zip(
        *found, strict=True
    ):
        assert (params, form, made) == (other_params, other_form, other_made)
        assert one is not None
        assert other is not None
        assert one.scores == other.scores
        assert one.routes == other.routes
    assert whole.best.candidate == cut.best.candidate


def test_a_member_without_scores_is_a_failure(tmp_path: Path) -> None:
    settings = campaign(tmp_path)
    ready = preflight(settings)
    made = ready.space.candidate({"share": 0.5})
    job = Job(Entry("trial 0", made, 0), "search", {"zoo_facts": ("exact_match",)})
    outcome = Evaluator(setup_of(ready)).evaluate(job)
    assert outcome.failure is not None
    assert "nothing is known of facts" in outcome.failure.reason


def test_another_scorer_than_the_resident_one_is_refused(tmp_path: Path) -> None:
    campaign(tmp_path, "scorer: {backend: hf}\n")
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("gold_loglikelihood", "exact_match"))
    message = r'c.yaml:\d+: scorer.backend: found "hf", but these candidates learn from prompts'
    with pytest.raises(CampaignError, match=message):
        evomerge.check(tmp_path / "c.yaml")


def test_a_metric_without_a_number_for_each_item_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = campaign(tmp_path)
    settings = changed(settings, tmp_path / "out", pruner="none")
    monkeypatch.setattr(Items, "race_fault", lambda self, task, metric: f"{metric} is no mean")
    message = r"objectives.0.metric: gold_loglikelihood is no mean, and these candidates learn"
    with pytest.raises(CampaignError, match=message):
        evomerge.check(settings)
