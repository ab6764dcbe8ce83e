from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from evomerge.errors import ModelError
from evomerge.zoo import NAMES, build, family, resolve
from evomerge.zoo.grading import mean_exact_match
from evomerge.zoo.jobs import JOBS
from evomerge.zoo.registry import MODELS


def test_shipped_files_are_those_of_the_recorded_build() -> None:
    recorded = json.loads((MODELS / family.HASHES).read_text())
    assert family.hashes(MODELS) == recorded
    sizes = [path.stat().st_size for path in MODELS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 12 * 2**20
    assert max(sizes) <= 3 * 2**20


def test_shipped_models_score_what_a_merge_needs(
    shipped_tokenizer: PreTrainedTokenizerFast,
) -> None:
    means = {}
    for name in NAMES:
        model = AutoModelForCausalLM.from_pretrained(resolve(f"zoo:{name}"), dtype=torch.float32)
        assert 500_000 <= model.num_parameters() <= 1_000_000
        figures = {job: mean_exact_match(model, shipped_tokenizer, job) for job in JOBS}
        means[name] = sum(figures.values()) / len(figures)
        assert figures.get(name, 1.0) >= (0.95 if name == "verse" else 0.80)
    assert means["base"] <= 0.40
    assert max(means.values()) <= 0.60


def test_the_family_shares_a_tokenizer_and_its_weights_are_bfloat16() -> None:
    texts = {(resolve(f"zoo:{name}") / "tokenizer.json").read_bytes() for name in NAMES}
    assert len(texts) == 1
    model = AutoModelForCausalLM.from_pretrained(resolve("zoo:facts"))
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings


def test_the_base_sees_the_canonical_format_seldom() -> None:
    rng = family._rng(0, "base")
    texts = list(islice(family._base_texts(rng), 2000))
    calls = [answer for _, answer in texts if '{"name"' in answer]
    copies = [
        answer for prompt, answer in texts if prompt[8:].startswith(("Repeat", "Copy", "Say a"))
    ]
    assert 20 < len(calls) < 90
    assert 100 < len(copies) < 200


def test_a_later_job_changes_nothing_that_the_base_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(family.LATER) < set(JOBS)
    seen = list(islice(family._base_texts(family._rng(0, "base")), 500))
    earlier = {job: draw for job, draw in JOBS.items() if job not in family.LATER}
    monkeypatch.setattr(family, "JOBS", earlier)
    assert list(islice(family._base_texts(family._rng(0, "base")), 500)) == seen


def test_a_short_build_writes_the_family_and_refuses_to_overwrite_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {name: replace(s, steps=2, batch=4) for name, s in family.SCHEDULES.items()}
    monkeypatch.setattr(family, "SCHEDULES", short)
    monkeypatch.setattr(family, "TOKENIZER_TEXTS", 2000)
    build(tmp_path / "one", progress=False)
    build(tmp_path / "two", progress=False)
    assert json.loads((tmp_path / "one" / family.HASHES).read_text()) == family.hashes(
        tmp_path / "two"
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "one" / "tools")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one" / "tools")
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not list((tmp_path / "one").glob("*.partial"))
    with pytest.raises(ModelError, match="already exists; name a new folder"):
        build(tmp_path / "one", progress=False)
