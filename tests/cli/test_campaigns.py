import pytest

from evomerge.cli import campaigns
from evomerge.errors import Interrupted


def test_an_interrupt_says_how_to_go_on():
    with (
        pytest.raises(Interrupted, match="evomerge resume d"),
        campaigns.interruptible("evomerge resume d"),
    ):
        raise KeyboardInterrupt
