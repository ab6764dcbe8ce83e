import torch

from evomerge.inference.cache import PreambleCache, SlotCache


def states(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(len(values), 1, -1, 1)


def preamble(values):
    cache = PreambleCache()
    cache.update(states(values), states(values), 0)
    cache.close(len(values))
    return cache


def test_prompts_then_one_token_each():
    cache = SlotCache(slots=2, capacity=4)
    cache.extend(slice(0, 2), torch.tensor([[0, 1], [0, 1]]), seen=2)
    keys, _ = cache.update(states([1.0, 2.0], [3.0, 0.0]), states([1.0, 2.0], [3.0, 0.0]), 0)
    assert keys.shape == (2, 1, 2, 1)
    assert cache.get_seq_length() == 0
    cache.extend(slice(0, 2), torch.tensor([[2], [1]]), seen=3)
    keys, values = cache.update(states([5.0], [6.0]), states([7.0], [8.0]), 0)
    assert keys[0, 0, :, 0].tolist() == [1, 2, 5]
    assert keys[1, 0, :2, 0].tolist() == [3, 6]
    assert values[1, 0, :2, 0].tolist() == [3, 8]
    assert cache.get_seq_length() == 2
    assert cache.get_mask_sizes(1, 0) == (3, 0)


def test_prompts_in_chunks_and_moves():
    cache = SlotCache(slots=3, capacity=2)
    for first, value in enumerate((1.0, 2.0, 3.0)):
        cache.extend(slice(first, first + 1), torch.tensor([[0]]), seen=1)
        cache.update(states([value]), states([value]), 0)
    cache.move(torch.tensor([2]), torch.tensor([0]))
    cache.extend(slice(0, 2), torch.tensor([[1], [1]]), seen=2)
    keys, _ = cache.update(states([9.0], [9.0]), states([9.0], [9.0]), 0)
    assert keys[:, 0, 0, 0].tolist() == [3, 2]


def test_a_preamble_stands_before_every_row():
    cache = PreambleCache()
    own = states([1.0, 2.0])
    assert cache.update(own, own, 0)[0] is own
    cache.close(2)
    keys, values = cache.update(states([3.0], [4.0]), states([5.0], [6.0]), 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 3], [1, 2, 4]]
    assert values[:, 0, :, 0].tolist() == [[1, 2, 5], [1, 2, 6]]
    again, _ = cache.update(states([7.0]), states([7.0]), 0)
    assert again[:, 0, :, 0].tolist() == [[1, 2, 7]]
    assert cache.get_seq_length() == 2
    assert cache.get_mask_sizes(3, 0) == (5, 0)


def test_gradients_flow_through_a_preamble():
    cache = PreambleCache()
    kept = states([1.0]).requires_grad_()
    cache.update(kept, kept, 0)
    cache.close(1)
    keys, _ = cache.update(states([3.0], [4.0]), states([5.0], [6.0]), 0)
    keys.sum().backward()
    assert kept.grad.item() == 2


def test_a_spread_beginning_and_a_few_tokens_for_some_slots():
    cache = SlotCache(slots=3, capacity=6)
    cache.spread(slice(0, 3), preamble([1.0, 2.0]))
    cache.extend(slice(0, 3), torch.tensor([[2]] * 3), seen=3)
    keys, _ = cache.update(states([3.0], [4.0], [5.0]), states([3.0], [4.0], [5.0]), 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 3], [1, 2, 4], [1, 2, 5]]
    cache.extend([2], torch.tensor([[3, 4]]), seen=5)
    keys, _ = cache.update(states([8.0, 9.0]), states([8.0, 9.0]), 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 5, 8, 9]]
    assert cache.get_seq_length() == 3


def test_preambles_kept_apart_follow_their_slots():
    cache = SlotCache(slots=4, capacity=2)
    one, other = preamble([1.0]), preamble([2.0, 3.0])
    cache.attach(slice(0, 1), one)
    cache.attach(slice(1, 3), other)
    shares = {id(kept): rows.tolist() for kept, rows in cache.attached([0, 1, 2, 3])}
    assert shares == {id(one): [0], id(other): [1, 2]}
    assert cache.attached([3]) == []
    cache.move(torch.tensor([2, 3]), torch.tensor([0, 1]))
    ((kept, rows),) = cache.attached([0, 1])
    assert (kept, rows.tolist()) == (other, [0])
    ((kept, rows),) = cache.attached([0])
    assert (kept, rows) == (other, None)
