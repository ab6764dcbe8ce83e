import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.inference import gold


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(2, 9))
def test_token_loglikelihoods_are_log_softmax(seed, rows, size):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, size, generator=generator)
    tokens = torch.randint(size, (rows,), generator=generator)
    expected = logits.log_softmax(1)[torch.arange(rows), tokens]
    assert torch.allclose(gold.token_loglikelihood(logits, tokens), expected, atol=1e-5)


def test_means_and_sums_by_answer():
    tokens, answer = torch.tensor([-1.0, -3.0, -5.0]), torch.tensor([0, 1, 0])
    assert gold.gold_loglikelihood(tokens, answer, 2).tolist() == [-3.0, -3.0]
    assert gold.summed_loglikelihood(tokens, answer, 2).tolist() == [-6.0, -3.0]


def test_probability_is_the_right_choices_share():
    choices = torch.tensor([0.0, 0.0, -900.0, -900.0, -900.0])
    item = torch.tensor([0, 0, 1, 1, 1])
    right = torch.tensor([True, False, True, True, False])
    assert torch.allclose(
        gold.gold_probability(choices, item, right, 2), torch.tensor([1 / 2, 2 / 3])
    )


def test_exact_match_needs_every_token():
    hits, answer = torch.tensor([True, True, False]), torch.tensor([0, 1, 1])
    assert gold.gold_exact_match(hits, answer, 2).tolist() == [1.0, 0.0]


def test_gradients_flow_through_the_soft_metrics():
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    tokens, answer = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1])

    def likelihood(values):
        return gold.gold_loglikelihood(gold.token_loglikelihood(values, tokens), answer, 2).sum()

    def share(values):
        sums = gold.summed_loglikelihood(gold.token_loglikelihood(values, tokens), answer, 2)
        return gold.gold_probability(
            sums, torch.zeros(2, dtype=torch.int64), torch.tensor([True, False]), 1
        ).sum()

    for metric in (likelihood, share):
        logits.grad = None
        metric(logits).backward()
        step = 1e-3 * torch.randn_like(logits)
        with torch.no_grad():
            change = float(metric(logits + step) - metric(logits - step)) / 2
        assert abs(change - float((logits.grad * step).sum())) < 1e-5
