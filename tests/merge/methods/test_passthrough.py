"""One model as it is."""

from __future__ import annotations

import torch


def test_unchanged_or_scaled(merge):
    tensor = torch.randn(3, 4)
    assert torch.equal(merge("passthrough", [tensor], [{}]), tensor)
    assert torch.equal(merge("passthrough", [tensor], [{"scale": 2}]), 2 * tensor)
