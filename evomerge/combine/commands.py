"""What a card says of an ensemble: how it is loaded, and the commands that serve it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `--max-lora-rank`."""
FIRST_PORT = 8000

_FEWER_SERVERS = (
    "\nOne server answers for all once the full models are adapters of the base; what that loses is "
    "measured and printed: `evomerge adapters RESULTS_DIR OUT_DIR --rank 64`.\n"
)

Combiner = Mapping[str, Any]
"""Content of `combiner.json`."""


def how_to_serve(combiner: Combiner) -> str:
    """Return a section of a card, in Markdown: how an ensemble is loaded and served."""
    text = (
        "\n## Load and serve this ensemble\n\n"
        '```python\nimport evomerge\n\nensemble = evomerge.load("PATH_OF_THIS_FOLDER")\n'
        'print(ensemble.generate("A prompt", max_new_tokens=64))\n```\n\n'
        "Without evomerge, transformers opens it: "
        "`AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`.\n\n"
    )
    if combiner["router"] is None:
        return (
            text + "Its members' distributions are mixed token by token, which no proxy can do.\n"
        )
    lines = "\n".join(commands(combiner))
    return (
        f"{text}Each prompt is answered by one member. In this folder, with vLLM as the server:\n\n"
        f"```bash\n{lines}\n```\n"
    ) + (_FEWER_SERVERS if len(commands(combiner)) > 2 else "")


def commands(combiner: Combiner) -> list[str]:
    """Return the command lines that serve an ensemble: its members' servers, and the proxy before them."""
    base, members = combiner["base"], combiner["members"]
    adapted = [one for one in members if "adapter" in one and _model(one) == _model(base)]
    apart = [one for one in members if one not in adapted]
    lines, upstreams = [], []
    if adapted:
        apart = [one for one in apart if _model(one) != _model(base)]
        plain = [one["name"] for one in members if one not in adapted and one not in apart]
        rank = max(one["rank"] for one in adapted)
        modules = [f"{one['name']}={one['adapter']}" for one in adapted]
        taken = any(one["name"] == "base" for one in adapted)
        names = plain or [_model(base) if taken else "base"]
        lines.append(
            f"vllm serve {_quoted(_model(base))} --served-model-name {_quoted(*names)} --enable-lora "
            f"--max-loras {len(adapted)} --max-lora-rank {_rank(rank)} --lora-modules {_quoted(*modules)}"
        )
        upstreams.append(f"http://127.0.0.1:{FIRST_PORT}")
    for one in apart:
        port = FIRST_PORT + len(lines)
        more = f" --port {port}" if lines else ""
        lora = ""
        if "adapter" in one:
            module = f"{one['name']}={one['adapter']}"
            lora = f" --enable-lora --max-lora-rank {_rank(one['rank'])} --lora-modules {_quoted(module)}"
        named = "" if lora else f" --served-model-name {_quoted(one['name'])}"
        lines.append(f"vllm serve {_quoted(_model(one))}{named}{more}{lora}")
        upstreams.append(f"{one['name']}=http://127.0.0.1:{port}")
    asked = " ".join(f"--upstream {_quoted(each)}" for each in upstreams)
    return [*lines, f"evomerge serve . {asked}"]


def _model(place: Mapping[str, Any]) -> str:
    return str(place.get("path") or place["id"])


def _rank(rank: int) -> int:
    return next((one for one in RANKS if one >= rank), rank)


def _quoted(*words: str) -> str:
    return " ".join(map(shlex.quote, words))
