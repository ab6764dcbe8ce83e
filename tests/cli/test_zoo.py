"""`evomerge zoo`: the list of the models, and what `build` passes on; nothing is trained here."""

from pathlib import Path

import pytest

from evomerge import cli, zoo


@pytest.fixture
def built(monkeypatch):
    calls = []
    monkeypatch.setattr(zoo, "build", lambda directory, *, seed: calls.append((directory, seed)))
    return calls


def test_zoo_alone_lists_every_model(capsys, built):
    assert cli.run_command(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"zoo:{name}" for name in zoo.NAMES]
    for line, about in zip(lines, zoo.ABOUT.values(), strict=True):
        assert line.endswith(f"  {about}")
    assert not built


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [([], (Path("zoo"), 0)), (["some/place", "--seed", "7"], (Path("some/place"), 7))],
)
def test_build_trains_into_the_folder_and_says_so(capsys, built, arguments, wanted):
    assert cli.run_command(["zoo", "build", *arguments]) == 0
    assert built == [wanted]
    assert capsys.readouterr().out == f"built the zoo in {wanted[0]}\n"  # and no list of models


def test_a_seed_below_0_is_refused(capsys, built):
    assert cli.run_command(["zoo", "build", "place", "--seed", "-1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "'--seed'" in err
    assert not built
