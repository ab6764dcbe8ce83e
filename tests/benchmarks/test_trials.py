import json
from pathlib import Path

import pytest

from benchmarks.speed import __main__ as every
from benchmarks.speed import _campaigns, _mergekit_evolve, trials
from benchmarks.speed._processes import Line


def ours(*told: float) -> _campaigns.Progressed:
    return _campaigns.Progressed(
        ready=1.0, searching=2.0, told=[(seconds, seconds) for seconds in told]
    )


def peer(*ends: float, begun: float = 10.0) -> _mergekit_evolve.Timeline:
    return _mergekit_evolve.Timeline(
        begun={1: begun, 2: begun},
        ended={worker: [(end, 2 * (end - begun)) for end in ends] for worker in (1, 2)},
    )


def test_rates_of_two_runs_are_weighed_by_their_time() -> None:
    row = trials.summary(5, [ours(3, 4, 5), ours(8, 18, 28)], peer(40.0, 70.0))
    assert row.ours_trials == 4
    assert row.ours_per_minute == pytest.approx(60 * 4 / 22)
    assert row.peer_per_minute == pytest.approx(4.0)
    assert row.ratio == pytest.approx(60 * 4 / 22 / 4)
    assert row.ours_cpu_seconds == pytest.approx(22 / 4)
    assert row.peer_cpu_seconds == pytest.approx(60.0)
    assert row.cpu_ratio == pytest.approx(60 / (22 / 4))
    assert row.aim == 40
    assert (row.ours_start_up, row.peer_start_up) == (3, 10.0)


def ran(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[dict, list[str]]:
    """Run the benchmark with both sides faked; return its report and the order of what it did."""
    order: list[str] = []

    def search(settings: dict, _: Path) -> _campaigns.Progressed:
        order.append("ours")
        assert settings["space"]["method"] == "ties"
        assert settings["items"]["search"] == trials.ITEMS
        return ours(3, 4, 5)

    def evolve(_programs: Path, settings: dict, *_: Path, watch: object, **__: object) -> object:
        order.append("peer")
        assert settings["limit"] == trials.ITEMS
        assert len(settings["genome"]["models"]) == 5
        assert not watch(peer(20.0), Line(1.0, ""))
        assert watch(peer(20.0), Line(1e6, ""))
        assert watch(peer(20.0, 30.0), Line(1.0, ""))
        assert not watch(_mergekit_evolve.Timeline(), Line(1e6, ""))
        return peer(40.0, 70.0)

    monkeypatch.setattr(_campaigns, "search", search)
    monkeypatch.setattr(_mergekit_evolve, "evolve", evolve)
    monkeypatch.setattr(_mergekit_evolve, "build_environment", lambda _: Path("/peer/bin"))
    checked = lambda python, *_: order.append(f"check {python}")  # noqa: E731
    monkeypatch.setattr(_mergekit_evolve, "check_agreement", checked)
    out = folder / "out.json"
    trials.main(["--out", str(out), "--peer-evaluations", "2", *more])
    return json.loads(out.read_text()), order


def test_ours_runs_before_and_after_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report, order = ran(tmp_path, monkeypatch)
    assert order == 2 * ["check /peer/bin/python", "ours", "peer", "ours"]
    assert [row["shots"] for row in report["rows"]] == [0, 5]
    assert report["rows"][0]["ratio"] == pytest.approx(15.0)
    assert any(pin.startswith("mergekit[evolve]==") for pin in report["peer"])
    assert "15.0 ×" in capsys.readouterr().out


def test_what_needs_a_peers_environment_is_not_in_make_bench(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: list[str] = []
    monkeypatch.setattr(every.runpy, "run_module", lambda name, **_: run.append(name))
    every.main()
    assert "benchmarks.speed.score" in run
    assert not {"benchmarks.speed.trials", "benchmarks.speed.time_to_quality"} & set(run)
    assert not [name for name in run if name.split(".")[-1].startswith("_")]
