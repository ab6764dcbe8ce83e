"""What the parents' own cards say: under which licence they are, and what they were trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, try_to_load_from_cache

from evomerge.config.model_names import is_folder, parts
from evomerge.zoo import registry

CARD = "README.md"
CONFIG = "config.json"
OTHER = "other"
"""What the Hub calls a licence that is not on its list."""


@dataclass(frozen=True)
class ParentCard:
    """What a parent says of itself.

    Attributes:
        licence: Of the Hub's names, or `other`; empty: it states none.
        name: Of another licence.
        link: To the text of another licence.
        datasets: What it was trained on.
    """

    licence: str = ""
    name: str = ""
    link: str = ""
    datasets: tuple[str, ...] = ()

    @property
    def stated(self) -> str:
        """The licence as people call it; empty: it states none."""
        return (self.name or self.licence) if self.licence == OTHER else self.licence

    @property
    def metadata(self) -> dict[str, str]:
        """The licence as a card's metadata."""
        found = {"license": self.licence, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in found.items() if value}


def read_card(model: str) -> ParentCard:
    """Return what a model says of itself; nothing is downloaded.

    Args:
        model: A folder, a Hub id, `zoo:NAME`, or `MODEL+ADAPTER`, of which both must agree.
    """
    if model.startswith(registry.PREFIX):
        return ParentCard("apache-2.0")  # as evomerge is, which ships it
    cards = [_read(_file(part, CARD), _file(part, CONFIG)) for part in parts(model)]
    datasets = tuple(dict.fromkeys(name for card in cards for name in card.datasets))
    agreed = common_licence(cards) or ParentCard()
    return ParentCard(agreed.licence, agreed.name, agreed.link, datasets)


def loading_class(model: str) -> str:
    """Return the name of transformers' class that loads what is merged from a model, by its configuration."""
    try:
        file = _file(parts(model)[0], CONFIG)
        config = {} if file is None else json.loads(file.read_text("utf-8"))
        is_causal = any("ForCausalLM" in name for name in config.get("architectures") or ())
        has_towers = bool(config.keys() & {"vision_config", "audio_config"})
    except (OSError, ValueError, AttributeError, TypeError):
        is_causal, has_towers = True, False
    return "AutoModelForMultimodalLM" if has_towers and not is_causal else "AutoModelForCausalLM"


def common_licence(cards: Sequence[ParentCard]) -> ParentCard | None:
    """Return one of the cards, if all state the same licence."""
    same = len({card.stated for card in cards}) == 1 and cards[0].stated
    return cards[0] if same else None


def licence_metadata(cards: Sequence[ParentCard]) -> dict[str, str]:
    """Return the licence of what is made of these parents: theirs where it is one, else `other`."""
    common = common_licence(cards)
    return {"license": OTHER} if common is None else common.metadata


def _file(model: str, name: str) -> Path | None:
    """Return a model's file on this machine, None where it is not here."""
    if is_folder(model):
        found = Path(model).expanduser() / name
        return found if found.is_file() else None
    repo, _, revision = model.partition("@")
    try:
        cached = try_to_load_from_cache(repo, name, revision=revision or None)
    except ValueError:  # it is no id either
        return None
    return Path(cached) if isinstance(cached, str) else None


def _read(card: Path | None, config: Path | None) -> ParentCard:
    """Read what either file states; one that is damaged states nothing."""
    data: Mapping[str, Any] = {}
    try:
        if card is not None:
            data = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
        if not data.get("license") and config is not None:
            data = {**data, "license": json.loads(config.read_text("utf-8")).get("license")}
    except Exception:  # noqa: BLE001 - of any parser: a card is anybody's text
        pass
    stated = data.get("datasets")
    datasets = stated if isinstance(stated, list) else [stated]
    return ParentCard(
        _text(data.get("license")).lower(),
        _text(data.get("license_name")),
        _text(data.get("license_link")),
        tuple(name for name in datasets if isinstance(name, str)),
    )


def _text(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value.strip() if isinstance(value, str) else ""
