import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import _campaigns
from benchmarks.speed._processes import Line
from evomerge import yaml_file
from evomerge.config import Campaign

SPACE = {"method": "ties", "parameters": {"weight": {"low": 0.0, "high": 1.0}}}


def settings(tmp_path: Path) -> dict[str, object]:
    return _campaigns.campaign(
        "zoo:base",
        {"first": "zoo:facts", "second": "zoo:tools"},
        SPACE,
        [{"task": "t", "metric": "acc"}],
        tmp_path,
        {"search": 5, "select": 3, "holdout": 3},
        {"sampler": "random", "trials": 4},
        workers=2,
    )


def line(seconds: float, stage: str, done: int) -> Line:
    return Line(seconds, json.dumps({"stage": stage, "done": done, "total": 9, "failed": 0}))


def test_a_campaign_is_one_that_evomerge_reads(tmp_path: Path) -> None:
    file = tmp_path / "campaign.yaml"
    file.write_text(yaml_file.dump(settings(tmp_path)))
    loaded = Campaign.load(file)
    assert loaded.expert_names() == ("first", "second")
    assert loaded.items.search == 5
    assert loaded.items.drawn_from.search == "test"
    assert loaded.items.drawn_from.holdout == "validation"
    assert (loaded.workers.count, loaded.workers.cpus) == (2, 1)


def test_rates_leave_the_first_trial_out() -> None:
    progressed = _campaigns.Progressed()
    told = [
        Line(1.0, "not JSON"),
        line(2.0, "parents and baselines", 0),
        line(5.0, "parents and baselines", 1),
        line(9.0, "search", 0),
        line(12.0, "search", 1),
        line(12.5, "search", 1),
        line(15.0, "search", 2),
        line(18.0, "search", 4),
        line(20.0, "select", 1),
    ]
    for one in told:
        progressed.note(one, lambda one=one: 2 * one.seconds)
    assert progressed.ready == 5.0
    assert progressed.searching == 9.0
    assert [at for at, _ in progressed.told] == [12.0, 15.0, 18.0, 18.0]
    assert progressed.trials == 3
    assert progressed.per_minute == pytest.approx(30.0)
    assert progressed.cpu_seconds_each == pytest.approx(4.0)
    assert progressed.start_up == 12.0


@pytest.mark.parametrize("status", [0, 2])
def test_a_search_is_read_to_its_end_or_its_failure_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    fake = tmp_path / "python"
    progress = [line(0, "search", done).text for done in (1, 2, 3)]
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nprint('the reason', sys.argv)\n"
        f"print({chr(10).join(progress)!r})\nsys.exit({status})\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(_campaigns.sys, "executable", str(fake))
    folder = tmp_path / "ours"
    if status:
        with pytest.raises(RuntimeError, match=r"status 2[\s\S]*the reason"):
            _campaigns.search(settings(tmp_path), folder)
    else:
        assert _campaigns.search(settings(tmp_path), folder).trials == 2
        assert str(folder / "results") in (folder / "search.log").read_text()
