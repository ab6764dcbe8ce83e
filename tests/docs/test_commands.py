"""What README and docs say cannot drift: commands run, examples load, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from evomerge import yaml_file
from evomerge.cli import run_command
from evomerge.config import Campaign

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
HELP = "evomerge search --help"
FIRST = (
    # what the pages take for granted
    "evomerge search search_spaces/quickstart.yaml --force",
    "evomerge search search_spaces/quickstart.yaml --seed 1 --out results/second",
)
INSTEAD = {
    # the recipe of `make quickstart`, which a test below holds it to
    "make quickstart": "evomerge search search_spaces/quickstart.yaml --force",
    "make test": f"make --directory {ROOT} --dry-run test",
    "make check": f"make --directory {ROOT} --dry-run check",
    "make docs": f"make --directory {ROOT} --dry-run docs",
    "evomerge resume results/mine --trials 20": "evomerge resume results/mine --trials 1",
    # a file of the user's that the page shows
    "evomerge merge recipe.yaml merged --methods my_methods.py": "evomerge merge --help",
    # what takes a browser, several machines, or hours
    "evomerge report results/quickstart --image history.svg --figure history": "evomerge report --help",
    "ray start --head --port=6379": "ray start --help",
    "ray start --address=FIRST_MACHINE:6379": "ray start --help",
    "evomerge search search_spaces/quickstart.yaml --address auto": HELP,
    "evomerge search search_spaces/pareto_front.yaml": HELP,
    "python benchmarks/smollm2/build.py --items ITEMS_DIR --out results/smollm2_models": (
        "python benchmarks/smollm2/build.py --help"
    ),
    "evomerge search search_spaces/smollm2.yaml --force": HELP,
    "python -m benchmarks.search_spaces quickstart": "python -m benchmarks.search_spaces --help",
    "python -m benchmarks.speed.trials": "python -m benchmarks.speed.trials --help",
    "python -m benchmarks.speed.time_to_quality": (
        "python -m benchmarks.speed.time_to_quality --help"
    ),
}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str = TEXT) -> list[str]:
    lines = [line for block in blocks("bash", text) for line in block.splitlines()]
    return list(
        dict.fromkeys(re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip())
    )


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
        for command in FIRST:
            status, output = self._run(command)
            assert status == 0, output

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
        assert arguments[0] != "pip", "it would install into this environment; say it in the text"
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


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(scratch: Scratch, command: str) -> None:
    status, output = scratch.run(command)
    assert status == 0, output[-2000:]


def test_the_commands_leave_what_the_guide_says(scratch: Scratch) -> None:
    scratch.run(commands()[-1])
    results = scratch.folder / "results" / "quickstart"
    stated = re.search(r"```\nresults/NAME/\n(.*?)```", TEXT, re.DOTALL)
    assert stated is not None
    names = [line.split()[0].rstrip("/") for line in stated[1].splitlines()]
    assert names == ["campaign.yaml", "study.db", "leaderboard.json", "leaderboard.md", "best"]
    assert [name for name in names if not (results / name).exists()] == []
    assert (scratch.folder / "merged" / "model.safetensors").exists()


def test_replaced_commands_are_shown_somewhere() -> None:
    assert sorted(set(INSTEAD) - set(commands())) == []


@pytest.mark.parametrize("target", ["test", "check", "docs", "quickstart"])
def test_make_has_the_target(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if target == "quickstart":
        assert INSTEAD["make quickstart"] in done.stdout


def test_the_readme_is_one_page() -> None:
    assert len(README.encode()) <= 12 * 1024


def test_the_campaign_explained_is_the_quickstart(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guides" / "campaign-file.md").read_text(encoding="utf-8")
    (block,) = blocks("yaml", guide)
    for name in ("search_spaces", "benchmarks", "results"):
        (tmp_path / name).mkdir()
    explained, shipped = (
        tmp_path / "search_spaces" / f"{n}.yaml" for n in ("explained", "shipped")
    )
    explained.write_text(block, encoding="utf-8")
    shipped.write_text((ROOT / "search_spaces" / "quickstart.yaml").read_text(encoding="utf-8"))
    assert Campaign.load(explained) == Campaign.load(shipped)


def test_the_readmes_campaign_is_valid_as_it_stands(scratch: Scratch) -> None:
    (block,) = blocks("yaml", README)
    (scratch.folder / "readme.yaml").write_text(block, encoding="utf-8")
    with chdir(scratch.folder), redirect_stdout(StringIO()), redirect_stderr(StringIO()) as err:
        assert run_command(["check", "readme.yaml"]) == 0, err.getvalue()


def test_the_python_example_runs(scratch: Scratch) -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    (block,) = blocks("python", page)
    assert "trials=100" in block
    with chdir(scratch.folder), redirect_stdout(StringIO()) as out:
        exec(compile(block.replace("trials=100", "trials=1"), "python.md", "exec"), {})
    assert out.getvalue().startswith("task_arithmetic ")
    assert (scratch.folder / "merged_from_python" / "config.json").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://")):
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


@pytest.mark.parametrize("page", PAGES[2:], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_of_the_docs_ends_with_its_limits(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    assert titles[-1] == "Limits"


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
