"""Chat templates by mergekit's rules and names."""

from __future__ import annotations

import importlib.resources
import shutil
from pathlib import Path

import pytest

from evomerge.candidate import Recipe, Source
from evomerge.errors import RecipeError
from evomerge.merge.chat_templates import TEMPLATES, chosen_template
from evomerge.merge.saving import save
from evomerge.merge.tokenizer import load_tokenizer


def test_templates(llama_family, tmp_path):
    folders = [Path(model) for model in llama_family.models]
    assert chosen_template(None, folders) is None
    assert chosen_template("{{ x }}", folders) == "{{ x }}"
    assert chosen_template("alpaca", folders) == TEMPLATES["alpaca"]
    odd = Path(shutil.copytree(folders[0], tmp_path / "odd"))
    (odd / "chat_template.jinja").write_text("{{ odd }}", encoding="utf-8")
    assert "message['role']" in (chosen_template("auto", [odd, *folders]) or "")
    assert chosen_template("auto", [odd]) == "{{ odd }}"
    (odd / "additional_chat_templates").mkdir()
    (odd / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tool }}")
    assert isinstance(load_tokenizer(str(odd)).chat_template, dict)
    assert chosen_template("auto", [odd]) == "{{ odd }}"  # of several the default one
    for gone in ("additional_chat_templates/tool_use.jinja", "chat_template.jinja"):
        (odd / gone).unlink()
    assert chosen_template("auto", [odd]) is None
    (odd / "tokenizer.json").unlink()
    (odd / "tokenizer_config.json").unlink()
    assert chosen_template("auto", [odd, folders[0]]) == chosen_template("auto", folders)
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


def test_names_are_mergekits():
    from mergekit._data import chat_templates

    files = importlib.resources.files(chat_templates).iterdir()
    theirs = {Path(file.name).stem: file for file in files if file.name.endswith(".jinja")}
    assert set(TEMPLATES) == set(theirs)


@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral"])
@pytest.mark.parametrize("roles", ["ua", "sua", "uau", "suau"])
def test_formats_are_mergekits(name, roles, llama_family):
    """alpaca and exaone apart: there mergekit's own texts come out with stray blanks and lines."""
    from mergekit._data import chat_templates

    theirs = importlib.resources.files(chat_templates).joinpath(f"{name}.jinja").read_text()
    words = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": words[role], "content": f"{i} text"} for i, role in enumerate(roles)]
    tokenizer = load_tokenizer(llama_family.base)
    for prompt in (False, True):
        texts = [
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
            for template in (TEMPLATES[name], theirs)
        ]
        expected = texts[1].replace("<|eot_id|>\n", "<|eot_id|>")  # Meta's format has no line there
        assert texts[0].strip() == expected.strip()


def test_exaone(llama_family):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tokenizer = load_tokenizer(llama_family.base)
    text = tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATES["exaone"], tokenize=False, add_generation_prompt=True
    )
    assert text == "[|system|][|endofturn|]\n[|user|]a\n[|assistant|]b[|endofturn|]\n[|assistant|]"


def test_it_is_checked_before_any_model_is_opened(tmp_path):
    recipe = Recipe(method="passthrough", models=(Source("/nowhere"),), chat_template="llama4")
    with pytest.raises(
        RecipeError, match=r'chat_template: "llama4" is neither a Jinja template.*"llama3"'
    ):
        save(recipe, tmp_path / "out")
