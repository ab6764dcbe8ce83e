"""Campaigns whose candidates vLLM takes as adapters, several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from evomerge.store import Store
from tests.vllm.adapter_family import save_adapters
from tests.vllm.served_family import Served
from tests.vllm.test_live import ENVIRONMENT, ROOT, campaign, points, refused, run, told

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return save_adapters(tmp_path_factory.mktemp("adapters"))


def test_a_campaign_in_batches_is_killed_and_resumed_and_finds_what_one_by_one_does(
    served: Served, tmp_path: Path
) -> None:
    def searched(name: str, args: str) -> tuple[Path, Path]:
        file = campaign(served, tmp_path / name, args)
        file.write_text(file.read_text().replace("sampler: cmaes", "sampler: random"))
        return file, tmp_path / name / "out"

    file, out = searched("batches", "{max_loras: 4}")
    command = [sys.executable, "-m", "evomerge", "search", str(file), "--display", "none"]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stderr=log, cwd=ROOT)
    while driver.poll() is None and told(out) < 4:
        time.sleep(0.05)
    assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
    driver.kill()
    driver.wait()
    before = [one for one in points(out) if one[1] == "complete"]
    assert 4 <= len(before) < 12
    run("evomerge", "resume", out, "--display", "none")
    after = points(out)
    assert [one for one in after if one in before] == before

    file, alone = searched("alone", "{}")
    run("evomerge", "search", file, "--display", "none")
    assert points(alone) == after
    assert rows(alone) == rows(out)
    with Store.open(out, write=False) as store:
        began = [trial.outcome.cost.began for trial in store.trials() if trial.outcome]
    assert sorted(began) == began


def rows(out: Path) -> list[tuple[str, object]]:
    board = json.loads((out / "leaderboard.json").read_text())
    return [(row["name"], row["splits"]) for row in board["rows"]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("{max_loras: 0}", "scorer.args.max_loras: found 0, expected a whole number of 1 or more"),
        (
            "{max_loras: 2, max_lora_rank: 9}",
            "scorer.args.max_lora_rank: found 9, expected one of vLLM's sizes",
        ),
        ("{max_loras: 2, lora_target_modules: [q_proj]}", "lora_target_modules is not free here"),
    ],
)
def test_adapters_that_vllm_does_not_take_are_told_in_one_line(
    served: Served, tmp_path: Path, args: str, said: str
) -> None:
    status, line = refused("search", campaign(served, tmp_path, args))
    assert status == 2
    assert said in line
