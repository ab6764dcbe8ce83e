from __future__ import annotations

from pathlib import Path
from types import ModuleType

from evomerge.candidate.trial import GradientJob
from evomerge.search.history import events
from evomerge.store import StoredBaseline, StoredGradient, StoredTrial


def test_events_come_in_the_order_in_which_they_happened(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient")
    store, study = driver.open_study(campaign)
    with store:
        happened = []
        work = study.ask_many(2)  # two steps
        happened += [("asked", driver.name_of(one)) for one in work]
        for _ in range(12):
            done = work.pop(1)
            study.tell(done, driver.answer(done))
            happened.append(("told", driver.name_of(done)))
            (new,) = study.ask_many(1)
            happened.append(("asked", driver.name_of(new)))
            work.append(new)
        assert {isinstance(one, GradientJob) for one in work} == {True} or len(happened) > 20
        found = events(store)
    assert all(isinstance(one.what, StoredBaseline) and one.kind == "told" for one in found[:3])
    names = []
    for one in found[3:]:
        assert isinstance(one.what, StoredTrial | StoredGradient)
        if isinstance(one.what, StoredTrial):
            names.append((one.kind, f"trial {one.what.number}"))
        else:
            names.append((one.kind, f"descent {one.what.descent}, step {one.what.step}"))
    assert names == happened
    assert ("asked", "trial 0") in names
