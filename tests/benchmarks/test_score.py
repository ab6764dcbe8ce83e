import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from benchmarks.speed import _counting, _score_tasks, score
from evomerge.tasks import SplitPlan, TaskRequest, load_items

CASES = ("multiple choice, 0-shot", "gold likelihood for generation", "generation, cold")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    for split, count in (("validation", 6), ("test", 5)):
        items = [{"prompt": f"Say {n}:", "answer": f" {n * 11}"} for n in range(1, count + 1)]
        text = "".join(json.dumps(item) + "\n" for item in items)
        (tmp_path / f"count_{split}.jsonl").write_text(text)
    return tmp_path


def test_prints_and_writes_a_row_a_case(
    llama_family: Any,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(score, "_quiet", lambda: None)  # for good, otherwise
    out = tmp_path / "report" / "score.json"
    options = {
        "--base": [llama_family.base],
        "--experts": llama_family.experts,
        "--jobs": ["count"],
        "--rows": [rows],
        "--end": ["!"],
        "--items": [4],
        "--rounds": [1],
        "--batch-sizes": [2, 4],
        "--trials": [2],
        "--cases": CASES,
        "--threads": [torch.get_num_threads()],
        "--out": [out],
    }
    score.main([str(each) for name, values in options.items() for each in (name, *values)])
    report = json.loads(out.read_text())
    assert tuple(row["title"] for row in report["rows"]) == CASES
    for row in report["rows"]:
        assert row["batch_size"] in (2, 4)
        assert row["ratio"] == pytest.approx(row["stock"] / row["ours"])
        assert 0 < row["forward"] <= 1
        assert row["prepared_first"] > 0
        assert row["prepared_later"] == 0
        assert row["bound"] > 1
    assert [trial for trial, _ in report["rss_mib"]] == [1]
    printed = capsys.readouterr().out
    head = printed.index("stock (batch)")
    for row in report["rows"]:
        assert printed.count(row["title"]) == 2  # as it comes, and in the table
        assert f"{row['ratio']:.1f} ×" in printed[head:]
    assert "resident memory after" in printed[head:]


def test_items_of_a_folder_become_choices_and_shots(
    llama_family: Any, rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    _score_tasks.write_tasks(folder, ["count"], rows, "!")
    names = ("bench_count_mc0", "bench_count_gen5")
    items = load_items(
        [TaskRequest(name) for name in names],
        tokenizer=AutoTokenizer.from_pretrained(llama_family.base),
        tasks_path=str(folder),
        plan=SplitPlan(counts={"search": 2}, first=True),
    )
    (choose,), (write,) = (items.leaves(name, "search") for name in names)
    assert choose.docs[1]["choices"] == [" 33", " 22", " 44", " 55"]
    assert choose.docs[1]["gold"] == 1
    prompt, options = write.requests[0][0].args
    assert prompt == "".join(f"Say {n}: {n * 11}!" for n in range(1, 6)) + "Say 1:"
    assert options["until"] == ["!"]


def test_multiply_adds_are_those_of_linear_layers() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with _counting.multiply_adds_of(module) as found, _counting.passes_of(module) as passes:
        module(torch.zeros(2, 7, dtype=torch.int64))
        module(torch.zeros(1, dtype=torch.int64))
    module(torch.zeros(1, dtype=torch.int64))
    assert found == [(14 + 1) * (3 * 4 + 4 * 2)]
    assert passes.count == 2
    assert passes.seconds > 0


def test_tokenising_is_counted(llama_family: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    with _counting.prepared(tokenizer) as found:
        tokens = tokenizer("ab")["input_ids"]
        tokenizer.encode("ab")
        before = found[0]
        tokenizer.decode(tokens)
    assert before >= 2
    assert found[0] == before
    tokenizer("ab")
    assert found[0] == before


def test_an_adapter_is_named_with_its_base(tmp_path: Path) -> None:
    assert score._expert("base", str(tmp_path)) == str(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert score._expert("base", str(tmp_path)) == f"base+{tmp_path}"
