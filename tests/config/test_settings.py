import pytest
from pydantic import ValidationError

from evomerge.config import Settings
from evomerge.config.settings import Count, NonEmpty


class Size(Settings):
    name: NonEmpty = "x"
    count: Count = 1
    share: float = 0.5


def test_settings_are_frozen_and_compare_by_value():
    assert Size(count=3) == Size(count=3)
    with pytest.raises(ValidationError, match="frozen"):
        Size().count = 2


@pytest.mark.parametrize(
    "wrong", [{"cuont": 1}, {"count": 0}, {"name": ""}, {"share": float("nan")}, {"share": "inf"}]
)
def test_unknown_empty_and_endless_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        Size(**wrong)


def test_an_unknown_field_is_named_with_file_and_line(refusal):
    assert refusal(new="serach: {}\n") == (
        '/c/c.yaml:11: serach: unknown key "serach"; did you mean "search"?'
    )
