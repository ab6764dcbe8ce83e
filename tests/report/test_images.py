"""Figures as objects of plotly and as files, and what is said where one cannot be had."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import optuna
import pytest

import evomerge
from evomerge import cli
from evomerge.errors import ResultsError, UserError
from evomerge.report import browser as browsers
from evomerge.report.figures import FIGURES
from evomerge.report.material import Material
from evomerge.result import Result
from evomerge.store import Store
from tests.report import studies

needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome", "chrome"))), reason="needs a browser"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("finished") / "out"
    studies.write(made).close()
    return made


@pytest.fixture
def result(folder: Path) -> Result:
    return evomerge.open(folder)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = cli.run_command(["report", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert not out
    return status, err


def test_a_notebook_gets_the_figures_of_the_page(result: Result) -> None:
    pytest.importorskip("plotly")
    with Store.open(result.folder, write=False) as store:
        material = Material.of(store)
        drawn = {name: figure.build(material) for name, figure in FIGURES.items()}
    for name, expected in drawn.items():
        plot = getattr(result, f"plot_{name}")
        if expected is None:
            with pytest.raises(
                ResultsError, match=f'the study has no figure "{name}"; it has leader'
            ):
                plot()
            continue
        found = plot()
        assert found.layout.title.text == FIGURES[name].title
        for trace, one in zip(found.data, expected["data"], strict=True):
            assert trace.name == one.get("name")
            assert list(trace.y) == one["y"]


def test_an_unknown_figure_lists_the_known_ones(result: Result) -> None:
    with pytest.raises(UserError, match='unknown figure "histroy"; did you mean "history"'):
        result.plot("histroy")


@pytest.mark.parametrize(
    ("image", "more", "message"),
    [
        ("x.gif", (), '--image: found "x.gif", expected a name that ends in .png, .svg or .pdf'),
        ("x", (), '--image: found "x", expected a name that ends in .png, .svg or .pdf'),
        ("x.png", ("--figure", "front"), '--figure: the study has no figure "front"; it has'),
        ("x.png", ("--figure", "other"), '--figure: unknown figure "other"'),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    image: str,
    more: tuple[str, ...],
    message: str,
) -> None:
    status, err = run(capsys, folder, "--image", tmp_path / image, *more)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / image).exists()


def test_a_figure_needs_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, err = run(capsys, folder, "--figure", "history")
    assert (status, err) == (2, "evomerge: --figure: say with --image where to write it\n")


@pytest.mark.parametrize("package", ["plotly", "kaleido"])
def test_a_missing_package_is_named_with_what_installs_it(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setitem(sys.modules, package, None)
    status, err = run(capsys, folder, "--image", tmp_path / "x.png")
    assert status == 2
    assert err == (
        f"evomerge: --image: images need {package}; install it with: pip install 'evomerge[plots]'\n"
    )


def test_a_missing_browser_is_said(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("kaleido")
    (tmp_path / "sitecustomize.py").write_text(
        "from choreographer.browsers.chromium import Chromium\n"
        "Chromium.find_browser = lambda *_, **__: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    status, err = run(capsys, folder, "--image", tmp_path / "x.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "images need Chromium or Chrome, and none was found" in err


def test_a_browser_that_never_answers_is_said(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("kaleido")
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\nexec cat <&3 >&2\n")  # until its pipe closes
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    monkeypatch.setattr(browsers, "SECONDS", 3.0)
    status, err = run(capsys, folder, "--image", tmp_path / "x.png")
    assert (status, err.count("\n")) == (1, 1)
    assert err == "evomerge: the browser did not draw the image, twice within 3 seconds\n"


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")]
)
def test_an_image_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, begins: bytes
) -> None:
    pytest.importorskip("kaleido")
    path = tmp_path / f"x.{ending}"
    status, err = run(capsys, folder, "--image", path, "--figure", "history")
    assert (status, err) == (0, "")
    content = path.read_bytes()
    assert content.startswith(begins)
    if ending == "svg":
        text = content.decode()
        assert "Search history" in text
        assert "best expert: tools" in text
        assert ">items<" not in text  # buttons are for pages


def test_optunas_own_plots_show_the_study(result: Result) -> None:
    pytest.importorskip("plotly")
    study, visualization = result.study, optuna.visualization
    history = visualization.plot_optimization_history(study)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert list(history.data[0].y) == [trial.value for trial in complete]
    assert visualization.plot_slice(study).data
    assert visualization.plot_parallel_coordinate(study).data
    assert visualization.plot_param_importances(study).data
    assert visualization.plot_timeline(study).data
    assert visualization.plot_edf(study).data
    assert visualization.plot_intermediate_values(study).data


def test_optunas_own_front_names_the_values(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    studies.write(tmp_path / "out", "pareto").close()
    front = optuna.visualization.plot_pareto_front(evomerge.open(tmp_path / "out").study)
    assert front.layout.xaxis.title.text == "zoo_tools/exact_match"
    assert front.layout.yaxis.title.text == "zoo_facts/exact_match"
