"""Names that mean nothing are answered before any heavy library is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.config import Campaign
from evomerge.errors import UserError
from evomerge.preflight import typos
from evomerge.preflight.typos import check_names

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "search_spaces" / "quickstart.yaml"
TYPOS = {
    "method": (
        "method: task_arithmetic",
        "method: task_aritmetic",
        r'did you mean "task_arithmetic"',
    ),
    "parameter": ("weight: {", "wieght: {", r'unknown parameter "wieght" .* did you mean "weight"'),
    "zoo": ("zoo:base", "zoo:bse", r"models\.base.*the zoo has no model"),
    "expert": ("zoo:tools", "./tolls", r"models\.experts\.2.*no such folder"),
    "tasks": (
        "tasks_path: ../benchmarks/tasks",
        "tasks_path: ../tsks",
        r"tasks_path.*no such folder",
    ),
    "task": (
        "task: zoo_tools",
        "task: zoo_tols",
        r'objectives.*unknown task "zoo_tols".*"zoo_tools"',
    ),
    "sampler": ("sampler: gradient", "sampler: cma", r'random, qmc; did you mean "cmaes"'),
}


@pytest.fixture
def file(tmp_path, request):
    old, new, _ = TYPOS[request.param]
    text = QUICKSTART.read_text().replace("../benchmarks", str(ROOT / "benchmarks"))
    old, new = (part.replace("../benchmarks", str(ROOT / "benchmarks")) for part in (old, new))
    assert old in text
    path = tmp_path / "c.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(("file", "kind"), [(k, k) for k in TYPOS], indirect=["file"])
def test_a_typo_is_named_with_its_line(file, kind):
    with pytest.raises(UserError, match=TYPOS[kind][2]) as caught:
        check_names(Campaign.load(file), file)
    assert caught.value.line is not None


def test_the_answer_needs_no_heavy_library(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(QUICKSTART.read_text().replace("task_arithmetic", "tis"))
    code = (
        "import sys; from evomerge.cli import run_command\n"
        f"status = run_command(['search', {str(path)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "assert status == 2, status\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'ray', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert 'unknown method "tis"' in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "ai2_arc", "gpqa", "zoo", "zoo_mc", "mmlu_*"])
def test_tasks_groups_and_tags_that_exist_are_let_through(name):
    campaign = Campaign.load(QUICKSTART)
    goal = campaign.objectives[0].model_copy(update={"task": name})
    check_names(campaign.model_copy(update={"objectives": (goal,)}))


def of_hub(monkeypatch, error):
    asked = []

    def model_info(_self, name, **_):
        asked.append(name)
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    typos._check_hub_id.cache_clear()
    campaign = Campaign.load(QUICKSTART)
    models = campaign.models.model_copy(update={"base": "org/no-such-model"})
    return campaign.model_copy(update={"models": models}), asked


def test_a_hub_id_that_does_not_exist_is_told_at_once(monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    campaign, asked = of_hub(monkeypatch, error)
    with pytest.raises(UserError, match=r"models\.base: .*no such repository on the Hub"):
        check_names(campaign)
    assert asked == ["org/no-such-model"]


def test_a_hub_out_of_reach_is_left_to_the_preflight(monkeypatch):
    campaign, asked = of_hub(monkeypatch, OSError("no network"))
    check_names(campaign)
    assert asked == ["org/no-such-model"]
