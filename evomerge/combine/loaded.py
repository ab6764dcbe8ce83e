"""A saved ensemble, open: text in, text out, and tokens as transformers has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evomerge.combine.modeling_ensemble import EnsembleForCausalLM
from evomerge.errors import ModelError
from evomerge.inference.encoding import Encoder
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.tokenizer import load_tokenizer


class LoadedEnsemble:
    """An ensemble that answers.

    Attributes:
        folder: Where it lies.
        model: As transformers opens it.
        tokenizer: Of all members.
    """

    def __init__(
        self, folder: Path, model: EnsembleForCausalLM, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.folder, self.model, self.tokenizer = folder, model, tokenizer
        self._encoder = Encoder(tokenizer, model.config)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return self.model.names

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return texts as the members read them, cut from the left to their context; none is empty."""
        first = [self._encoder.prefix_token or 0]
        return [list(each) or first for each in self._encoder.prompts(texts)]

    def route(self, texts: Sequence[str]) -> list[str]:
        """Return which member answers each prompt.

        Raises:
            ValueError: They all answer together.
        """
        return self.model.route(self.tokens(texts))

    @overload
    def generate(self, prompts: str, **options: Any) -> str: ...

    @overload
    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]: ...

    @overload
    def generate(self, prompts: Tensor, **options: Any) -> Tensor: ...

    def generate(
        self, prompts: str | Sequence[str] | Tensor, **options: Any
    ) -> str | list[str] | Tensor:
        """Continue prompts, each by its member.

        Args:
            prompts: A text, several texts, or tokens `[B, L]` padded on the left.
            options: Of `generate` of transformers, such as `max_new_tokens`.

        Returns:
            What follows the text, or each of the texts; of tokens, tokens with the prompts before them.
        """
        if isinstance(prompts, Tensor):
            written: Tensor = self.model.generate(prompts, **options)
            return written
        if isinstance(prompts, str):
            return self._continued([prompts], options)[0]
        return self._continued(list(prompts), options)

    def _continued(self, texts: Sequence[str], options: dict[str, Any]) -> list[str]:
        if not texts:
            return []
        rows = self.tokens(texts)
        width = max(map(len, rows))
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        device = self.model.base.device
        if options.get("stop_strings"):
            options = {"tokenizer": self.tokenizer, **options}
        written = self.model.generate(tokens.to(device), attention_mask=mask.to(device), **options)
        found: list[str] = self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        return found


def load(
    folder: Path | str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedEnsemble:
    """Open a saved ensemble.

    Args:
        folder: Of the ensemble, such as `results/NAME/best`.
        device: Where to run.
        dtype: Of the members; None: in which they were scored.
        trust_remote_code: Let the members run code of their own.

    Raises:
        ModelError: The folder holds no ensemble, or a member is gone or was changed: it is named; or members
            have code of their own, which is not allowed.
        UserError: The device or dtype does not exist here.
    """
    folder = Path(folder)
    placed = usable_device(device)
    options: dict[str, Any] = {} if dtype is None else {"dtype": torch_dtype(dtype)}
    options["trust_remote_code"] = trust_remote_code
    if not folder.is_dir():
        raise ModelError("no such folder; expected a saved ensemble", file=folder)
    try:
        model = EnsembleForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split()).removeprefix(f"{folder}: ")
        raise ModelError(message, file=folder) from None
    tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
    return LoadedEnsemble(folder, model.to(placed), tokenizer)
