"""Write anew what the README quotes: help texts, the tree, leaderboards.

    python tests/readme_help.py [results/quickstart/leaderboard.md]

With a leaderboard's file, the one on the first screen is replaced too. `tests/test_readme.py` fails where
the README is stale.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PACKAGE = ROOT / "evomerge"
SMOLLM2 = ROOT / "results" / "smollm2" / "leaderboard.md"
COMMANDS = (
    "",
    "init",
    "check",
    "search",
    "resume",
    "report",
    "compare",
    "merge",
    "score",
    "schema",
    "zoo build",
)
IN_ORDER = (
    "__init__.py",
    "errors.py",
    "yaml_file.py",
    "recipe",
    "trial.py",
    "campaign",
    "goals",
    "racing",
    "validation.py",
    "space",
    "merge",
    "score",
    "workers",
    "store",
    "search",
    "report",
    "run.py",
    "sampler_choice.py",
    "check.py",
    "zoo",
)
FOLDERS = {
    "zoo/models": "the shipped family: a base and six specialists, bfloat16",
    "report/templates": "the model card's text",
}
OUTSIDE = {
    "search_spaces/": "campaign files that run as they are, each named for what it searches",
    "benchmarks/": "tasks/ (the lm-eval tasks shipped), speed/, search/, smollm2/ (a real family)",
    "results/": "written by commands only",
    "tests/": "mirrors the package, room by room",
}


def refresh(text: str) -> str:
    """Return the README with every quoted part as the program and the files have it now."""
    text = replace(text, "help", help_texts())
    text = replace(text, "tree", tree())
    board = SMOLLM2.read_text(encoding="utf-8") if SMOLLM2.is_file() else ""
    return replace(text, "smollm2", board)


def replace(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name -->` and the next `<!-- end -->`."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"README.md: expected one part between <!-- {name} --> and <!-- end -->")
    body = f"\n{content.strip()}\n\n" if content.strip() else ""
    return pattern.sub(lambda match: match[1] + body + match[2], text)


def help_texts() -> str:
    """Return every command's help, 90 columns wide."""
    parts = []
    for command in COMMANDS:
        name = f"evomerge {command}".strip()
        shown = f"```\n{help_of(command.split())}\n```"
        parts.append(f"<details><summary><code>{name}</code></summary>\n\n{shown}\n\n</details>")
    return "\n".join(parts)


def help_of(command: list[str]) -> str:
    """Return the text of `evomerge COMMAND --help`."""
    from evomerge.cli import run_command

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "90"
    try:
        with redirect_stdout(StringIO()) as stream:
            status = run_command([*command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if status != 0:
        raise SystemExit(f"evomerge {' '.join(command)} --help ended with status {status}")
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def tree() -> str:
    """Return the package, a line a file: the first line of its docstring."""
    lines = [("evomerge/", "")]
    lines += _entries(PACKAGE, 1)
    lines += list(OUTSIDE.items())
    width = max(len(name) for name, _ in lines) + 2
    shown = "\n".join(f"{name:{width}}{what}".rstrip() for name, what in lines)
    return f"```\n{shown}\n```"


def _entries(folder: Path, depth: int) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir(), key=_place):
        name = "  " * depth + path.name
        inside = str(path.relative_to(PACKAGE))
        if inside in FOLDERS:
            lines.append((name + "/", FOLDERS[inside]))
        elif path.is_dir() and any(path.rglob("*.py")):
            lines.append((name + "/", _purpose(path / "__init__.py")))
            lines += _entries(path, depth + 1)
        elif path.suffix == ".py" and (path.name != "__init__.py" or folder == PACKAGE):
            lines.append((name, _purpose(path)))
    return lines


def _place(path: Path) -> tuple[int, str]:
    top = path.parent == PACKAGE and path.name in IN_ORDER
    return (IN_ORDER.index(path.name) if top else len(IN_ORDER), path.name)


def _purpose(path: Path) -> str:
    if not path.is_file():
        raise SystemExit(f"{path}: missing; every folder of the package says what it is for")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{path}: no docstring; the README's tree quotes its first line")
    return docstring.splitlines()[0].rstrip(".")


def main(arguments: list[str]) -> None:
    """Refresh README.md in place."""
    text = refresh(README.read_text(encoding="utf-8"))
    for board in arguments:
        text = replace(text, "quickstart", Path(board).read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
