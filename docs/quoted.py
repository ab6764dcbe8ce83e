"""What the site's pages quote from the program: help texts, the tree, the settings, leaderboards.

mkdocs calls `on_page_markdown` for every page (`hooks:` in `mkdocs.yml`), so nothing that is generated is
stored, and nothing can drift. A page asks with a comment of its own line: `<!-- help -->`, `<!-- tree -->`,
`<!-- settings -->`, `<!-- methods -->`, `<!-- board FILE -->`, `<!-- code FILE -->`. Run with a leaderboard's
file, it puts that into the README.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "evomerge"
FOLDERS = {
    "zoo/models": "the shipped family: a base and seven specialists, bfloat16",
    "report/templates": "the model card's text",
    "report/page/templates": "the pages' HTML, styles and script",
    "report/page/plotly": "plotly.js as npm ships it, with its licence",
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in what the page asks for. Called by mkdocs."""
    return re.sub(r"^<!-- (\w+)(?: (\S+))? -->$", _filled, markdown, flags=re.MULTILINE)


def _filled(match: re.Match[str]) -> str:
    name, argument = match[1], match[2]
    if name == "board":
        return (ROOT / argument).read_text(encoding="utf-8").strip()
    if name == "code":
        return f"```python\n{(ROOT / argument).read_text(encoding='utf-8').strip()}\n```"
    return {"help": help_texts, "tree": tree, "settings": settings, "methods": methods}[name]()


def commands() -> list[str]:
    """Return every command, as it is typed after `evomerge`, in the order of the help."""
    import typer

    from evomerge.cli.app import app

    found: list[str] = []

    def walk(command: Any, name: str) -> None:  # noqa: ANN401 - click's, vendored or not
        found.append(name)
        for each in getattr(command, "commands", {}).values():
            walk(each, f"{name} {each.name}".strip())

    walk(typer.main.get_command(app), "")
    return found


def help_texts() -> str:
    """Return every command's help, 90 columns wide."""
    parts = []
    for command in commands():
        name = f"evomerge {command}".strip()
        parts.append(f"## {name}\n\n```\n{help_of(command.split())}\n```\n")
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


def settings() -> str:
    """Return a table of fields for each part of the campaign file, from the settings' own descriptions."""
    from evomerge.config import Campaign

    schema = Campaign.model_json_schema()
    parts = [_section("Campaign", schema)]
    parts += [
        _section(name, part) for name, part in schema["$defs"].items() if "properties" in part
    ]
    return "\n".join(parts)


def _section(name: str, part: dict[str, Any]) -> str:
    lines = [
        f"### {name.removesuffix('Settings')}",
        "",
        str(part.get("description", "")).split("\n\n")[0],
        "",
    ]
    lines += ["| field | default | means |", "| --- | --- | --- |"]
    required = part.get("required", [])
    for field, about in part["properties"].items():
        default = "required" if field in required else f"`{_shown(about.get('default'))}`"
        means = " ".join(str(about.get("description", "")).split()).replace("|", "\\|")
        lines.append(f"| `{field}` | {default} | {means} |")
    return "\n".join([*lines, ""])


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "…" if isinstance(value, (dict, list)) else str(value)


def methods() -> str:
    """Return a table of merge methods, and one of the parameters of each."""
    from evomerge.merge.methods import METHODS

    lines = ["| method | models | gradients by |", "| --- | --- | --- |"]
    for name, method in METHODS.items():
        smooth = [f"`{key}`" for key, spec in method.parameters.items() if spec.differentiable]
        rows = " (of rows, too)" if method.rows else ""
        counted = f"{', '.join(smooth)}{rows}" if smooth else "none"
        lines.append(f"| [`{name}`](#{name}) | {_models(method)} | {counted} |")
    parts = ["\n".join(lines) + "\n"]
    for name, method in METHODS.items():
        parts.append(f"### {name}\n")
        if not method.parameters:
            parts.append("No parameters.\n")
            continue
        rows = [
            f"| `{key}` | {'each model' if spec.per_source else 'all'} | {_values(spec)} | "
            f"{_default(spec)} | {spec.help.replace('|', chr(92) + '|')} |"
            for key, spec in method.parameters.items()
        ]
        head = "| parameter | of | values | default | means |\n| --- | --- | --- | --- | --- |\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _models(method: Any) -> str:  # noqa: ANN401 - the package is imported where it is quoted
    least, most = method.min_models, method.max_models
    count = str(least) if least == most else f"{least} or more" if most is None else f"to {most}"
    if method.needs_base:
        return f"base and {count}"
    return f"{count}, or base and {count}" if method.uses_base else count


def _values(spec: Any) -> str:  # noqa: ANN401
    if spec.kind == "boolean":
        return "true, false"
    kind = "whole numbers" if spec.kind == "integer" else "numbers"
    low, high = spec.low, spec.high
    if low is None and high is None:
        return f"any {kind}"
    return f"{kind} of at least {low:g}" if high is None else f"{kind} from {low:g} to {high:g}"


def _default(spec: Any) -> str:  # noqa: ANN401
    return (
        "required"
        if spec.required
        else f"`{_shown(spec.default)}`"
        if spec.default is not None
        else "none"
    )


def tree() -> str:
    """Return the package, a line a file: the first line of its docstring."""
    lines = [("evomerge/", _purpose(PACKAGE / "__init__.py")), *_entries(PACKAGE, 1)]
    width = max(len(name) for name, _ in lines) + 2
    shown = "\n".join(f"{name:{width}}{what}".rstrip() for name, what in lines)
    return f"```\n{shown}\n```"


def _entries(folder: Path, depth: int) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        name = "  " * depth + path.name
        inside = str(path.relative_to(PACKAGE))
        if inside in FOLDERS:
            lines.append((name + "/", FOLDERS[inside]))
        elif path.is_dir() and any(path.rglob("*.py")):
            lines.append((name + "/", _purpose(path / "__init__.py")))
            lines += _entries(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append((name, _purpose(path)))
    return lines


def _purpose(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{path}: no docstring; the tree quotes its first line")
    return inspect.cleandoc(docstring).splitlines()[0].rstrip(".")


def main(board: str) -> None:
    """Put a leaderboard's text (`results/quickstart/leaderboard.md`) into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    content = Path(board).read_text(encoding="utf-8").strip()
    shown = f"<!-- quickstart -->\n\n{content}\n\n<!-- end -->"
    pattern = re.compile(r"<!-- quickstart -->\n.*?<!-- end -->", re.DOTALL)
    readme.write_text(pattern.sub(lambda _: shown, text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
