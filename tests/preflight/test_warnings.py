"""What is probably not meant is named in one line."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.preflight.campaign_plan import memory_of, workers_here
from evomerge.preflight.machine import Here
from evomerge.preflight.warnings import duration, same_prompts, warnings_of, without_gradient
from evomerge.space import Needs

GB = 10**9
LAPTOP = Here(cores=4, host=16 * GB, host_free=12 * GB)
TWO_GPUS = Here(cores=16, host=64 * GB, host_free=60 * GB, gpus=(25 * GB, 25 * GB))


def found(ready, machine=LAPTOP, seconds=60.0, trials=100):
    memory = memory_of(ready, machine, workers_here(ready.campaign, machine))
    return warnings_of(ready, machine, memory, seconds, trials, (1, 2))


def test_a_plain_campaign_raises_none(checked):
    assert found(checked()) == ()


@pytest.mark.parametrize(
    ("change", "machine", "message"),
    [
        (("layers: 2", "layers: 2\n  components: [self_attn, mpl]"), LAPTOP, (
            'space.components: "mpl" matches no tensor; there are input_layernorm, mlp, '
            "post_attention_layernorm, self_attn, embed_tokens, norm"
        )),
        (("layers: 2", "layers: 2\n  components: [self_attn, attn.q_proj]"), LAPTOP, (
            'space.components: "attn.q_proj" matches only tensors that stand in an earlier component'
        )),
        (("layers: 2", 'layers: 2\n  components: [weight]'), LAPTOP, (
            "space.components: nothing is left for `rest`, whose numbers are searched for nothing"
        )),
        (("count: auto", "count: 10000"), LAPTOP, (
            "workers.count: 10000 workers of 1 cores share 4; more than 4 make nothing faster here"
        )),
        (("count: auto", "count: 10000"), LAPTOP, "10000 workers need "),
        (("count: auto", "count: auto, cpus: 64"), LAPTOP, (
            "workers.cpus: 64 cores a worker, there are 4 here"
        )),
        (("count: auto", "count: auto, gpus: 1"), LAPTOP, "workers.gpus: there is no GPU here"),
        (("count: auto", "count: 4, gpus: 1"), TWO_GPUS, (
            "workers.gpus: 4 workers of 1 GPUs need 4, there are 2 here; lower workers.count"
        )),
        (("count: auto", "count: auto, gpus: 3"), TWO_GPUS, (
            "workers.gpus: 1 worker of 3 GPUs need 3, there are 2 here"
        )),
        (("{count: auto}", "{count: 1, gpus: 2}\nscorer: {backend: hf}"), TWO_GPUS, (
            "workers.gpus: a worker of the scorer hf computes on one GPU, and 2 are kept for each; take 1"
        )),
        (("count: auto", "count: auto, batch_tokens: 1000000000"), LAPTOP, (
            "workers.batch_tokens: a pass of 1000000000 tokens takes "
        )),
        (("count: auto", "count: auto, batch_tokens: 1"), LAPTOP, (
            "workers.batch_tokens: passes of 1 tokens are slow"
        )),
        (("trials: 4", "trials: 4, finalists: 1000"), LAPTOP, (
            "search.finalists: 1000 of 100 trials are all of them"
        )),
        (("sampler: cmaes", "sampler: cmaes, pruner: wilcoxon"), LAPTOP, (
            "wilcoxon is the earlier name of race"
        )),
    ],
)  # fmt: skip
def test_each_is_named(checked, change, machine, message):
    lines = found(checked(*change), machine)
    assert any(message in line for line in lines), lines
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize("reads", ["moment", "merged", "importance"])
def test_moments_of_experts_that_all_read_the_same_prompts(reads, checked, tmp_path):
    space = SimpleNamespace(needs=Needs(statistics=frozenset([reads])))
    change = ("zoo_facts, metric", "zoo_facts, teacher: facts, metric")
    own_file = ("name: small", f"name: small\nstatistics: {tmp_path}/mine")
    lines = [[*same_prompts(replace(checked(*to), space=space))] for to in ((), change, own_file)]
    assert lines[1:] == [[], []]
    assert len(lines[0]) == (reads != "importance")
    assert all("without a `teacher`" in line for line in lines[0])


def test_budgets_that_nobody_waits_for(checked):
    ready = checked()
    lines = found(ready, seconds=4e9, trials=10**9)
    assert any("search.trials: 1000000000 candidates" in line for line in lines)
    assert any("all of it would take 127 years; lower search.trials" in line for line in lines)
    few = found(ready, trials=7)
    assert few == (
        "7 trials are few for 4 dimensions; fewer layer groups or components, or more trials, would help",
        "search.finalists: 8 of 7 trials are all of them; expected some of the best",
    )


def test_a_full_disk(checked):
    (line,) = warnings_of(checked(), LAPTOP, None, None, 100, (5 * GB, 2 * GB))
    assert line == "the results need 5.0 GB, the disk has 2.0 GB free"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "under 1 min"), (300, "5 min"), (7000, "117 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_dimensions_without_gradient_are_named_by_parameter():
    ranges = ["weight/a", "weight/b", "density/a", "density/b", "method/ties"]
    space = SimpleNamespace(distributions=dict.fromkeys(ranges), differentiable=ranges[:2])
    (found,) = without_gradient(space, "gradient")
    assert "no gradient by 2 of 5 dimensions (density ×2)" in found
    assert list(without_gradient(space, "cmaes")) == []
    space.differentiable = ranges[:4]
    assert list(without_gradient(space, "gradient")) == []
