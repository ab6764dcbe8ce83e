import torch

from evomerge.score.cache import SlotCache


def states(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(len(values), 1, -1, 1)


def test_prompts_then_one_token_each():
    cache = SlotCache(slots=2, capacity=4)
    cache.fill(0)
    keys, _ = cache.update(states([1.0, 2.0], [3.0, 0.0]), states([1.0, 2.0], [3.0, 0.0]), 0)
    assert keys.shape == (2, 1, 2, 1)
    assert cache.get_seq_length() == 0
    cache.extend(torch.tensor([[2], [1]]), seen=3)
    keys, values = cache.update(states([5.0], [6.0]), states([7.0], [8.0]), 0)
    assert keys[0, 0, :, 0].tolist() == [1, 2, 5]
    assert keys[1, 0, :2, 0].tolist() == [3, 6]
    assert values[1, 0, :2, 0].tolist() == [3, 8]
    assert cache.get_seq_length() == 2
    assert cache.get_mask_sizes(1, 0) == (3, 0)


def test_prompts_in_chunks_and_moves():
    cache = SlotCache(slots=3, capacity=2)
    for first, value in enumerate((1.0, 2.0, 3.0)):
        cache.fill(first)
        cache.update(states([value]), states([value]), 0)
    cache.move(torch.tensor([2]), torch.tensor([0]))
    cache.extend(torch.tensor([[1], [1]]), seen=2)
    keys, _ = cache.update(states([9.0], [9.0]), states([9.0], [9.0]), 0)
    assert keys[:, 0, 0, 0].tolist() == [3, 2]
