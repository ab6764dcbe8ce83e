"""The README cannot drift: its commands run, and what it quotes is what the program says."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

from evomerge import yaml_file
from evomerge.campaign import Campaign
from evomerge.cli import run_command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HELP = "evomerge search --help"
INSTEAD = {
    # the recipe of `make quickstart`, which a test below holds it to
    "make quickstart": "evomerge search search_spaces/quickstart.yaml --force",
    "make test": f"make --directory {ROOT} --dry-run test",
    "evomerge resume results/quickstart --trials 50": "evomerge resume results/quickstart --trials 1",
    # what takes several machines, or hours
    "ray start --head --port=6379": "ray start --help",
    "ray start --address=FIRST_MACHINE:6379": "ray start --help",
    "evomerge search search_spaces/quickstart.yaml --address auto": HELP,
    "python benchmarks/smollm2/build.py --items ITEMS_DIR --out results/smollm2_models": (
        "python benchmarks/smollm2/build.py --help"
    ),
    "evomerge search search_spaces/smollm2.yaml --force": HELP,
    "python -m benchmarks.speed.trials": "python -m benchmarks.speed.trials --help",
    "python -m benchmarks.speed.time_to_quality": (
        "python -m benchmarks.speed.time_to_quality --help"
    ),
}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str = README) -> list[str]:
    lines = [line for block in blocks("bash", text) for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip()]


def shrink(path: Path) -> None:
    """Cut a campaign down to two experts, two tasks, a few items and trials, in this process."""
    data = yaml_file.read(path).data
    data["models"]["experts"] = data["models"]["experts"][:2]
    data["objectives"] = data["objectives"][:2]
    data["items"] = {"search": 3, "select": 3, "holdout": 4}
    data["search"] = {"sampler": "cmaes", "trials": 2, "finalists": 1}
    data["workers"] = {"count": 0}
    path.write_text(yaml_file.dump(data), encoding="utf-8")


class Scratch:
    """A folder in which the README's commands run, in their order, up to any one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, tuple[int, str]] = {}
        (folder / "search_spaces").mkdir()
        for file in (ROOT / "search_spaces").glob("*.yaml"):
            (folder / "search_spaces" / file.name).write_text(file.read_text(encoding="utf-8"))
        shrink(folder / "search_spaces" / "quickstart.yaml")
        (folder / "benchmarks").symlink_to(ROOT / "benchmarks")

    def run(self, wanted: str) -> tuple[int, str]:
        for command in commands():
            if command not in self.done:
                self.done[command] = self._run(INSTEAD.get(command, command))
            if command == wanted:
                break
        return self.done[wanted]

    def _run(self, command: str) -> tuple[int, str]:
        words, _, target = command.partition(" > ")
        arguments = shlex.split(words)
        if arguments[0] != "evomerge":
            return self._run_outside(arguments)
        with chdir(self.folder), redirect_stdout(StringIO()) as out:
            with redirect_stderr(StringIO()) as err:
                status = run_command(arguments[1:])
            if target:
                Path(target).write_text(out.getvalue(), encoding="utf-8")
            if arguments[1] == "init":
                shrink(Path(arguments[arguments.index("-o") + 1]))
        return status, out.getvalue() + err.getvalue()

    def _run_outside(self, arguments: list[str]) -> tuple[int, str]:
        programs = Path(sys.executable).parent
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=240,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    return Scratch(tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def readme_help() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_help", ROOT / "tests" / "readme_help.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(scratch: Scratch, command: str) -> None:
    status, output = scratch.run(command)
    assert status == 0, output[-2000:]


def test_the_commands_leave_what_the_readme_says(scratch: Scratch) -> None:
    scratch.run(commands()[-1])
    results = scratch.folder / "results" / "quickstart"
    stated = re.search(r"```\nresults/NAME/\n(.*?)```", README, re.DOTALL)
    assert stated is not None
    names = [line.split()[0].rstrip("/") for line in stated[1].splitlines()]
    assert names == ["campaign.yaml", "study.db", "leaderboard.json", "leaderboard.md", "best"]
    assert [name for name in names if not (results / name).exists()] == []
    assert (scratch.folder / "merged" / "model.safetensors").exists()


def test_replaced_commands_are_in_the_readme() -> None:
    assert sorted(set(INSTEAD) - set(commands())) == []


def test_make_quickstart_is_the_search_that_stands_for_it() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "quickstart"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert INSTEAD["make quickstart"] in done.stdout


def test_the_campaign_explained_is_the_quickstart(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    for name in ("search_spaces", "benchmarks", "results"):
        (tmp_path / name).mkdir()
    explained, shipped = (
        tmp_path / "search_spaces" / f"{n}.yaml" for n in ("explained", "shipped")
    )
    explained.write_text(block, encoding="utf-8")
    shipped.write_text((ROOT / "search_spaces" / "quickstart.yaml").read_text(encoding="utf-8"))
    assert Campaign.load(explained) == Campaign.load(shipped)


def test_the_python_example_runs(scratch: Scratch) -> None:
    (block,) = blocks("python")
    assert "trials=100" in block
    with chdir(scratch.folder), redirect_stdout(StringIO()) as out:
        exec(compile(block.replace("trials=100", "trials=1"), "README.md", "exec"), {})
    assert out.getvalue().startswith("task_arithmetic ")
    assert (scratch.folder / "merged_from_python" / "config.json").exists()


def test_help_texts_tree_and_leaderboards_are_fresh(readme_help: ModuleType) -> None:
    assert readme_help.refresh(README) == README, "stale: run `make docs`"


def test_every_command_of_the_program_has_its_help_in_the_readme(readme_help: ModuleType) -> None:
    known = re.findall(
        r"^  (\w+)  ", readme_help.help_of([]).partition("Commands:")[2], re.MULTILINE
    )
    assert {name.split()[0] for name in readme_help.COMMANDS if name} == set(known)


def test_a_part_that_is_missing_is_named(readme_help: ModuleType) -> None:
    assert readme_help.replace("<!-- a -->\nold\n<!-- end -->", "a", "new") == (
        "<!-- a -->\n\nnew\n\n<!-- end -->"
    )
    with pytest.raises(SystemExit, match="<!-- b -->"):
        readme_help.replace(README, "b", "")


def test_links_to_files_and_headings_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    headings = {
        "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert links
    for link in links:
        assert link in headings or (ROOT / link).exists(), link


def test_contributing_names_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for command in commands(text):
        target = command.removeprefix("make ")
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, command
