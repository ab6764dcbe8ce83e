"""A watcher such as optuna-dashboard reads the study all the while, and nobody meets a lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry, Outcome
from evomerge.store import Store

SPACE = {f"w{i}": FloatDistribution(0.0, 1.0) for i in range(3)}
WATCH = """
import sys
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
seen = -1
print("watching", flush=True)
while seen < int(sys.argv[2]):
    study = optuna.load_study(study_name=None, storage="sqlite:///" + sys.argv[1])
    seen = sum(trial.state.is_finished() for trial in study.get_trials())
print("seen", seen, flush=True)
"""
TRIALS = 40


def test_a_watcher_and_the_driver_do_not_lock_each_other_out(
    store: Store, candidate: Callable[..., Entry], scored: Outcome
) -> None:
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(store.folder / "study.db"), str(TRIALS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    for number in range(TRIALS):
        store.asked(candidate(number), dict.fromkeys(SPACE, 0.5), SPACE)
        store.told(candidate(number), scored, [0.1 * number])
    out, err = watcher.communicate(timeout=120)
    assert (out, err, watcher.returncode) == (f"seen {TRIALS}\n", "", 0)
