import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.speed import _mergekit_evolve as peer
from benchmarks.speed._processes import Line

READY = "\x1b[36m(InMemoryMergeEvaluator pid={})\x1b[0m INFO [actors.py:256] Model initialized"
DONE = (
    "\x1b[36m(InMemoryMergeEvaluator pid={})\x1b[0m 2026-01-01:13:30:43,029 INFO     [helpers.py:43] "
    "{{'task': {{'alias': 'task', 'acc,none': 0.93}}}}"
)
NOISE = (
    "Received 12 genotypes",
    "\x1b[36m(InMemoryMergeEvaluator pid=1) INFO [plan.py:178] Skipping optional weight",
    "Running loglikelihood requests: 100%|██████████| 1600/1600 [01:15<00:00, 21.15it/s]",
)


def timeline(*events: tuple[float, str]) -> peer.Timeline:
    noted = peer.Timeline()
    clock = {"seconds": 0.0}

    def cpu_seconds(_: int) -> float:
        return clock["seconds"] / 2

    for seconds, text in events:
        clock["seconds"] = seconds
        noted.note(Line(seconds, text), cpu_seconds)
    return noted


def test_a_timeline_counts_whole_evaluations_of_each_worker() -> None:
    noted = timeline(
        *((1.0, text) for text in NOISE),
        (10.0, READY.format(1)),
        (12.0, READY.format(2)),
        (40.0, DONE.format(1)),
        (52.0, DONE.format(2)),
        (70.0, DONE.format(1)),
    )
    assert noted.evaluations == 3
    assert noted.start_up == 12.0
    assert noted.per_minute == pytest.approx(60 * (2 / 60 + 1 / 40))
    assert noted.cpu_seconds_each == pytest.approx((30 + 20) / 3)


def test_a_worker_that_has_not_ended_an_evaluation_adds_nothing() -> None:
    noted = timeline((10.0, READY.format(1)), (11.0, READY.format(2)), (40.0, DONE.format(1)))
    assert noted.per_minute == pytest.approx(2.0)


def test_a_genome_names_each_choice() -> None:
    made = peer.genome(
        Path("/b"), [Path("/x"), Path("/y")], "ties", {"t": "acc,none", "u": "acc,none"},
        limit=200, layer_granularity=2, filters=("self_attn",),
    )  # fmt: skip
    assert made["genome"] == {
        "models": ["/x", "/y"],
        "base_model": "/b",
        "merge_method": "ties",
        "layer_granularity": 2,
        "filters": ["self_attn"],
    }
    assert [task["weight"] for task in made["tasks"]] == [0.5, 0.5]
    assert made["limit"] == 200
    assert made["apply_chat_template"] is False


def test_an_environment_is_built_once_for_its_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        ran.append(command)
        tmp_path.joinpath("env").mkdir(exist_ok=True)

    monkeypatch.setattr(subprocess, "run", run)
    assert peer.build_environment(tmp_path / "env") == tmp_path / "env" / "bin"
    assert len(ran) == 2
    assert str(peer.PINS) in ran[1]
    peer.build_environment(tmp_path / "env")
    assert len(ran) == 2
    (tmp_path / "env" / "pins.sha256").write_text("of other pins")
    peer.build_environment(tmp_path / "env")
    assert len(ran) == 4


def test_the_pins_name_what_the_peer_needs() -> None:
    pins = peer.PINS.read_text()
    for wanted in ("mergekit[evolve]==", "torch==", "lm_eval==", "transformers==", "ray=="):
        assert wanted in pins


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, None),
        ({"logits": [1.0, 2.1]}, "logits 0.1 apart"),
        ({"tokens": [3]}, "tokens alike: False"),
        ({"requests": "other"}, "requests alike: False"),
    ],
)
def test_a_peer_that_reads_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], found: str | None
) -> None:
    same = {"logits": [1.0, 2.0], "tokens": [1, 2], "requests": "digest"}

    def probe(python: object, *_: object) -> dict[str, object]:
        return same if python == sys.executable else {**same, **change}

    monkeypatch.setattr(peer, "probe", probe)

    def check() -> None:
        peer.check_agreement(Path("/peer/python"), Path("/m"), Path("/t"), ["t"], 5)

    if found is None:
        check()
    else:
        with pytest.raises(RuntimeError, match=found):
            check()


FAKE_RAY = """#!{python}
import sys, time
print("Ray runtime started." if {starts} else "no room", flush=True)
if {starts}: time.sleep(600)
"""
FAKE_EVOLVE = """#!{python}
import os, sys, time
print("(InMemoryMergeEvaluator pid=1) INFO [actors.py:256] Model initialized", flush=True)
print(os.environ["RAY_ADDRESS"], sys.argv, flush=True)
print("(InMemoryMergeEvaluator pid=1) INFO [helpers.py:43] {{'t': 1}}", flush=True)
if {hangs}: time.sleep(600)
sys.exit({status})
"""


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., Path]:
    def build(*, starts: bool = True, hangs: bool = False, status: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in (("ray", FAKE_RAY), ("mergekit-evolve", FAKE_EVOLVE)):
            values = {"starts": starts, "hangs": hangs, "status": status}
            (folder / name).write_text(text.format(python=sys.executable, **values))
            (folder / name).chmod(0o755)
        return folder

    return build


def evolve(programs: Path, tmp_path: Path, **more: object) -> peer.Timeline:
    return peer.evolve(
        programs, {"genome": {}}, tmp_path, tmp_path / "storage", workers=2, evaluations=8, **more
    )  # fmt: skip


def test_a_run_to_its_end(tmp_path: Path, programs: Callable[..., Path]) -> None:
    found = evolve(programs(), tmp_path)
    assert found.evaluations == 1
    assert found.finished is not None
    log = (tmp_path / "storage" / "evolve.log").read_text()
    assert "127.0.0.1:" in log
    assert "'--num-gpus', '2'" in log
    assert "'--in-memory'" in log


def test_a_run_is_stopped_when_enough_was_seen(
    tmp_path: Path, programs: Callable[..., Path]
) -> None:
    found = evolve(programs(hangs=True), tmp_path, watch=lambda seen, _: seen.evaluations == 1)
    assert found.finished is None
    assert found.evaluations == 1


def test_a_run_that_fails_says_what_it_printed(
    tmp_path: Path, programs: Callable[..., Path]
) -> None:
    with pytest.raises(RuntimeError, match=r"status 3[\s\S]*helpers.py"):
        evolve(programs(status=3), tmp_path)


def test_a_ray_that_does_not_start_is_told(tmp_path: Path, programs: Callable[..., Path]) -> None:
    with pytest.raises(RuntimeError, match=r"Ray did not start[\s\S]*no room"):
        evolve(programs(starts=False), tmp_path)
