from __future__ import annotations

from pathlib import Path
from types import ModuleType

from evomerge.candidate.trial import GradientJob
from evomerge.search.history import recorded
from evomerge.store import StoredBaseline, StoredGradient, StoredTrial


def test_events_come_in_the_order_in_which_they_happened(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient")
    store, study = driver.open_study(campaign)
    with store:
        happened = []
        work = driver.ask(study, 2)  # two steps
        happened += [("asked", driver.name_of(one)) for one in work]
        for _ in range(12):
            done = work.pop(1)
            study.tell(done, driver.answer(done))
            happened.append(("told", driver.name_of(done)))
            (new,) = driver.ask(study, 1)
            happened.append(("asked", driver.name_of(new)))
            work.append(new)
        assert {isinstance(one, GradientJob) for one in work} == {True} or len(happened) > 20
        found = recorded(store)
    assert all(isinstance(stored, StoredBaseline) and told for stored, told in found[:3])
    names = []
    for stored, told in found[3:]:
        kind = "told" if told else "asked"
        if isinstance(stored, StoredTrial):
            names.append((kind, f"trial {stored.number}"))
        else:
            assert isinstance(stored, StoredGradient)
            names.append((kind, f"descent {stored.descent}, step {stored.step}"))
    assert names == happened
    assert ("asked", "trial 0") in names
