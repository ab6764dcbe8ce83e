"""Errors that are found after the campaign file was read name its line all the same."""

import pytest

from evomerge.config.places import located
from evomerge.errors import CampaignError, ModelError, UserError

TEXT = """\
name: small
models:
  base: zoo:base
  experts:
    - zoo:facts
    - zoo:tools
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("field", "line"),
    [("name", 1), ("models.base", 3), ("models.experts.1", 6), ("models.dtype", 2)],
)
def test_a_field_is_given_its_file_and_line(file, field, line):
    with pytest.raises(ModelError) as caught, located(file):
        raise ModelError("no such folder", field=field)
    assert str(caught.value) == f"{file}:{line}: {field}: no such folder"


def test_the_file_of_the_error_itself_is_kept_in_the_message(file):
    with pytest.raises(CampaignError) as caught, located(file):
        raise CampaignError("twice", field="models.experts.0", file="task.yaml", line=7)
    assert (caught.value.file, caught.value.line) == (str(file), 5)
    assert caught.value.message == "task.yaml:7: twice"


def test_without_a_campaign_file_or_a_field_the_error_stays_as_it_is(file):
    for place, field in ((None, "models.base"), (file, None)):
        error = UserError("bad", field=field)
        with pytest.raises(UserError) as caught, located(place):
            raise error
        assert caught.value is error
