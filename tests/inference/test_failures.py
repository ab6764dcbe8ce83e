import pytest

from evomerge.errors import EvomergeError, UserError
from evomerge.inference.failures import Collapsed, NotFinite


@pytest.mark.parametrize("kind", [Collapsed, NotFinite])
def test_is_a_failure_and_not_the_users_fault(kind):
    assert issubclass(kind, EvomergeError)
    assert not issubclass(kind, UserError)
