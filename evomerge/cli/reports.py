"""Commands on results folders: leaderboards, one or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import FormatOption, ResultsDir, SplitOption, in_color
from evomerge.errors import UserError


def report(
    results: ResultsDir,
    format_: FormatOption = "table",
    split: SplitOption = None,
    trials: Annotated[bool, typer.Option("--trials", help="List all trials instead.")] = False,
    trial: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Show one trial and its weights instead.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with figures and items instead."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again as the study goes on.")
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a figure instead: FILE.png, .svg or .pdf."),
    ] = None,
    figure: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which figure; default: leaderboard.")
    ] = None,
) -> None:
    """Show the leaderboard of a finished or running campaign, its trials, a page or a figure."""
    from evomerge.report.formats import write
    from evomerge.report.layout import leaderboard_report
    from evomerge.report.leaderboard import leaderboard
    from evomerge.report.trials import trial_report, trials_report
    from evomerge.store import Store

    if (trials or trial is not None) and split is not None:
        raise UserError("trials are scored on search items; leave it out", field="--split")
    if trials and trial is not None:
        raise UserError("give --trials for all, or --trial N for one")
    if watch and html is None:
        raise UserError("found without a page to write; add --html FILE", field="--watch")
    if html is not None:
        if trials or trial is not None or split is not None or image or format_ != "table":
            raise UserError("a page holds all; leave other options out", field="--html")
        _write_page(results, html, watch)
        return
    if image is None and figure is not None:
        raise UserError("say with --image where to write it", field="--figure")
    if image is not None:
        _write_image(results, image, figure or "leaderboard")
        return
    with Store.open(results, write=False) as store:
        if trial is not None:
            shown = trial_report(store, trial)
        elif trials:
            shown = trials_report(store)
        else:
            shown = leaderboard_report(leaderboard(store), split)
    print(write(shown, format_, color=in_color()), end="")


def _write_page(results: Path, file: Path, watch: bool) -> None:
    from evomerge.report.page.watching import follow_report, write_report

    if watch:
        print(f"{file}: written again as the study goes on, until it is finished or Ctrl-C")
        follow_report(results, file)
    else:
        write_report(results, file)
    print(f"wrote {file}")


def _write_image(results: Path, image: Path, figure: str) -> None:
    from evomerge.report.images import write_image
    from evomerge.report.material import Material
    from evomerge.store import Store

    with Store.open(results, write=False) as store:
        write_image(Material.of(store), image, figure)


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Two or more results folders.")
    ],
    format_: FormatOption = "table",
    split: SplitOption = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with figures instead.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare also what is not comparable, and say why.")
    ] = False,
) -> None:
    """Compare campaigns: their winners on the same items, their searches at equal effort, their settings."""
    from evomerge.report.comparison import compare_folders, write_comparison

    if html is None:
        print(compare_folders(results, format_, split, anyway=anyway, color=in_color()), end="")
    elif format_ != "table":
        raise UserError("a page is no format; leave --format out", field="--html")
    else:
        write_comparison(results, html, split, anyway=anyway)
