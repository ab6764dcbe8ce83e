import pytest
import torch

from evomerge.inference.batches import plan
from evomerge.inference.encoding import Reading
from evomerge.inference.failures import NotFinite
from evomerge.inference.forward import Forward
from evomerge.inference.loglikelihood import score_batches

GENERATOR = torch.Generator().manual_seed(3)


def reading(group, length=12, targets=3, ends=()):
    shared = [10 + group, 20, 30, 40]
    tokens = shared + torch.randint(3, 200, (length,), generator=GENERATOR).tolist()
    return Reading(
        tokens, tokens[-targets:] if ends else [*tokens[1 - targets :], 77], ends, group, False
    )


READINGS = [reading(i // 3, length=4 + i, ends=(7, 9) if i % 4 == 0 else ()) for i in range(12)]


def scored(module, *, share=True, batch_tokens=100, readings=READINGS):
    forward = Forward(module)
    batches = plan(
        readings,
        batch_tokens=batch_tokens,
        vocabulary=forward.vocabulary,
        share=share,
        device=forward.device,
    )
    return score_batches(forward, batches, len(readings))


def alone(module, reading):
    """One sequence, nothing shared, nothing padded."""
    logits = module(torch.tensor([reading.tokens])).logits[0].log_softmax(1)
    rows = logits[len(reading.tokens) - len(reading.targets) - bool(reading.ends) :]
    values = [float(row[target]) for row, target in zip(rows, reading.targets, strict=False)]
    hits = [int(row.argmax()) == target for row, target in zip(rows, reading.targets, strict=False)]
    if reading.ends:
        values.append(float(rows[-1][list(reading.ends)].logsumexp(0)))
        hits.append(int(rows[-1].argmax()) in reading.ends)
    return values, hits


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_equals_each_sequence_alone(subject, architecture, share):
    module = subject(architecture).module
    with torch.no_grad():
        sums, greedy = scored(module, share=share)
        for index, each in enumerate(READINGS):
            values, hits = alone(module, each)
            assert abs(float(sums[index]) - sum(values)) < 1e-4
            assert bool(greedy[index]) == all(hits)


def test_does_not_depend_on_the_batch(llama):
    with torch.inference_mode():
        small, large = (scored(llama.module, batch_tokens=size)[0] for size in (1, 10**6))
    assert float((small - large).abs().max()) < 1e-4


def test_nan_is_found(llama):
    weight = next(llama.module.parameters())
    kept = weight.data.clone()
    try:
        with torch.no_grad():
            forward = Forward(llama.module)
            weight[20] = torch.nan
            batches = plan(
                READINGS, batch_tokens=50, vocabulary=259, share=True, device=forward.device
            )
            with pytest.raises(NotFinite, match="NaN or infinite"):
                score_batches(forward, batches, len(READINGS))
    finally:
        weight.data.copy_(kept)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_single_wrong_logit_is_found(llama, wrong):
    place = torch.tensor([50])
    handle = llama.module.get_output_embeddings().register_forward_hook(
        lambda _, __, output: output.index_fill(-1, place, wrong)
    )
    try:
        with torch.inference_mode(), pytest.raises(NotFinite, match="NaN or infinite"):
            scored(llama.module)
    finally:
        handle.remove()


def test_nothing_to_score(llama):
    assert [each.tolist() for each in scored(llama.module, readings=[])] == [[], []]
