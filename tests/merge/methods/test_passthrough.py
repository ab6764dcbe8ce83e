"""One model as it is."""

from __future__ import annotations

import torch


def test_unchanged_or_scaled(merge):
    tensor = torch.randn(3, 4)
    assert torch.equal(merge("passthrough", [tensor], [{}]), tensor)
    assert torch.equal(merge("passthrough", [tensor], [{"scale": 2}]), 2 * tensor)


def test_the_scale_has_a_gradient_where_there_is_one(gradients):
    tensor, gradient = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert gradients("passthrough", gradient, [tensor], [{"scale": 2.0}]).own == {"scale": (11.0,)}
    assert not gradients("passthrough", gradient, [tensor], [{}]).own
