from pathlib import Path

import pytest

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.errors import CampaignError

TEXT = """\
name: small
models:
  base: zoo:base
  experts: [zoo:facts, zoo:tools]
space:
  method: ties
  parameters:
    weight: {low: 0.0, high: 1.2}
objectives:
  - {task: zoo_facts, metric: exact_match}
"""


@pytest.fixture
def read():
    """Read a campaign file, with lines of its text replaced by others."""

    def read(old="", new=""):
        assert old in TEXT
        text = TEXT.replace(old, new, 1) if old else TEXT + new
        document = yaml_file.parse(text, path=Path("/c/c.yaml"), kind=CampaignError)
        return Campaign.from_document(document)

    return read


@pytest.fixture
def refusal(read):
    """Read a campaign file that is refused, and return the one line that says why."""

    def refusal(old="", new=""):
        with pytest.raises(CampaignError) as caught:
            read(old, new)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refusal
