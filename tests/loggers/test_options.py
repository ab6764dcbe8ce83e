from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from evomerge.errors import CampaignError
from evomerge.loggers import LOGGERS, Logger, check_logger


class Shelf(Logger):
    def __init__(self, run, *, shelf: str = "a", level: int = 1, mode: Literal["on", "off"] = "on"):
        super().__init__(run)


class Absent(Logger):
    package = "absent_package"
    install = "'evomerge[absent]'"


KNOWN = {"shelf": Shelf, "absent": Absent}


def check(name, **options):
    check_logger(name, options, KNOWN, "loggers.1")


def test_right_options_are_taken():
    check("shelf")
    check("shelf", shelf="b", level=2, mode="off")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shelv", {}, 'loggers.1: unknown logger "shelv"; did you mean "shelf"?'),
        (
            "shelf",
            {"shelff": 1},
            'loggers.1.shelff: shelf has no option "shelff"; did you mean "shelf"?',
        ),
        ("shelf", {"level": "x"}, 'loggers.1.level: found "x", expected a valid integer'),
        ("shelf", {"mode": "of"}, "loggers.1.mode: found \"of\", expected 'on' or 'off'"),
        ("shelf", {"run": "x"}, 'loggers.1.run: shelf has no option "run"'),
        (
            "absent",
            {},
            "loggers.1: needs the package absent_package; install it with: pip install "
            "'evomerge[absent]'",
        ),
    ],
)
def test_wrong_ones_are_refused(name, options, message):
    with pytest.raises(CampaignError) as error:
        check(name, **options)
    assert message in str(error.value)


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch):
    (tmp_path / "absent_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CampaignError, match="needs the package absent_package"):
        check("absent")


def test_every_logger_says_what_installs_it():
    assert {"wandb", "mlflow", "tensorboard", "trackio"} <= set(LOGGERS)
    for name in ("wandb", "mlflow", "tensorboard", "trackio"):
        assert LOGGERS[name].package == name
        assert LOGGERS[name].install == f"'evomerge[{name}]'"
