import pytest

from evomerge.config import Campaign
from evomerge.yaml_file import parse


def test_there_are_none_unless_named(read):
    assert read().loggers == ()


def test_they_are_named_alone_or_with_options(read, tmp_path):
    campaign = read(new="loggers: [tensorboard, {name: wandb, project: p, folder: logs}]\n")
    first, second = campaign.loggers
    assert (first.name, first.folder, first.options) == ("tensorboard", None, {})
    assert (second.name, second.options) == ("wandb", {"project": "p"})
    assert second.folder is not None
    assert second.folder.endswith("/logs")
    assert second.folder.startswith("/")
    again = Campaign.from_document(parse(campaign.to_yaml()))
    assert again.loggers == campaign.loggers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "loggers: tensorboard",
            'c.yaml:11: loggers: found "tensorboard", expected a list, such as',
        ),
        ("loggers: [1]", "c.yaml:11: loggers.0: found 1, expected a logger, or {name: LOGGER"),
        (
            "loggers: [{project: p}]",
            'c.yaml:11: loggers.0.name: is missing; expected the field "name"',
        ),
        ("loggers: [wandb, {name: wandb}]", 'c.yaml:11: loggers.1: logger "wandb" is given twice'),
    ],
)
def test_wrong_ones_are_refused(refusal, text, message):
    assert message in refusal(new=f"{text}\n")
