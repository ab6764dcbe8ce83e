"""Winners of several campaigns side by side, and whether their differences mean anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from evomerge.candidate.trial import SPLITS, Split
from evomerge.config.destination import refuse_unwritable
from evomerge.errors import UserError, nearest
from evomerge.report.comparison.comparable import Sides
from evomerge.report.comparison.comparison import Comparison, comparison
from evomerge.report.comparison.layout import comparison_report
from evomerge.report.comparison.page import comparison_page
from evomerge.report.formats import write
from evomerge.report.material import Material
from evomerge.store import Store
from evomerge.store.folder import write_whole

__all__ = [
    "Comparison",
    "compare_folders",
    "comparison",
    "comparison_page",
    "comparison_report",
    "write_comparison",
]


def compare_folders(
    folders: Sequence[Path],
    format: str = "table",
    split: Split | None = None,
    *,
    anyway: bool = False,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Write several results folders side by side; arguments as in `comparison` and `write`.

    Raises:
        UserError: An unknown format or split.
        ResultsError: A folder holds no campaign, or the campaigns cannot be compared.
    """
    with _opened(folders, split) as sides:
        compared = comparison(sides, split, anyway=anyway)
        return write(comparison_report(compared), format, width=width, color=color)


def write_comparison(
    folders: Sequence[Path], file: Path, split: Split | None = None, *, anyway: bool = False
) -> None:
    """Write a page of several results folders; arguments as in `comparison`.

    Raises:
        UserError: An unknown split, or the file cannot be written.
        ResultsError: A folder holds no campaign, or the campaigns cannot be compared.
    """
    if file.is_dir():
        raise UserError("is a folder; expected the name of an HTML file", file=file)
    refuse_unwritable(file, advice="choose another --html")
    with _opened(folders, split) as sides:
        page = comparison_page(comparison(sides, split, anyway=anyway), sides)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, page)


@contextmanager
def _opened(folders: Sequence[Path], split: str | None) -> Iterator[Sides]:
    if split is not None and split not in SPLITS:
        raise UserError(f'unknown split "{split}"; {nearest(split, SPLITS)}', field="--split")
    labels = _unique([str(one) for one in folders])
    with ExitStack() as opened:
        yield {
            label: Material.of(opened.enter_context(Store.open(folder, write=False)))
            for label, folder in zip(labels, folders, strict=True)
        }


def _unique(labels: Sequence[str]) -> list[str]:
    """Number the repetitions: `a`, `a #2`."""
    counts = [labels[: index + 1].count(label) for index, label in enumerate(labels)]
    return [
        label if count == 1 else f"{label} #{count}"
        for label, count in zip(labels, counts, strict=True)
    ]
