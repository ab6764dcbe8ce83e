"""Tokenizers and chat templates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.errors import ModelError, RecipeError
from evomerge.merge import load_tokenizer
from evomerge.merge.tokenizer import TEMPLATES, chosen_template


def test_load(llama_family):
    for name in (llama_family.base, f"{llama_family.base}+{llama_family.experts[0]}"):
        tokenizer = load_tokenizer(name)
        assert tokenizer.decode(tokenizer("añb")["input_ids"]) == "añb"


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer that transformers reads") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_templates(llama_family, tmp_path):
    folders = [Path(model) for model in llama_family.models]
    assert chosen_template(None, folders) is None
    assert chosen_template("{{ x }}", folders) == "{{ x }}"
    assert chosen_template("alpaca", folders) == TEMPLATES["alpaca"]
    odd = Path(shutil.copytree(folders[0], tmp_path / "odd"))
    (odd / "chat_template.jinja").write_text("{{ odd }}", encoding="utf-8")
    assert "message['role']" in (chosen_template("auto", [odd, *folders]) or "")
    assert chosen_template("auto", [odd]) == "{{ odd }}"
    (odd / "chat_template.jinja").unlink()
    assert chosen_template("auto", [odd]) is None
    with pytest.raises(RecipeError, match='did you mean "alpaca"'):
        chosen_template("alpacca", folders)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_our_templates_render(name, llama_family):
    tokenizer = load_tokenizer(llama_family.base)
    messages = [
        {"role": role, "content": f"{role} text"} for role in ("system", "user", "assistant")
    ]
    text = tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=True
    )
    positions = [text.index(f"{role} text") for role in ("system", "user", "assistant")]
    assert positions == sorted(positions)
