"""Forward passes that compute only the logits that are read.

A hook before the output embedding keeps the positions that are read; the module's own forward does the
rest, so whatever it does to logits (Gemma's soft-capping, Cohere's scaling) is done to ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from evomerge.inference.attention import Share, cascading, passes_of
from evomerge.inference.cache import PreambleCache
from evomerge.inference.failures import NotFinite

_PROBE_LENGTH = 6
_REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)


class Forward:
    """A module's logits at chosen positions; what the module can do is tried out once.

    The module is held weakly: what is known of it may be kept by it, and goes with it.

    Args:
        module: A causal language model with the interface of transformers: `forward(input_ids,
            attention_mask, position_ids, past_key_values, use_cache)` returns an object with `logits`
            `[B, L, V]`. `get_output_embeddings` is used where it is there.

    Attributes:
        window: Most tokens that every layer sees; None: any number.
        vocabulary: Number of logits a position.
        takes_masks: Whether a full mask and explicit positions are honoured.

    Raises:
        NotFinite: The module's logits are NaN.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = ref(module)
        first = next(module.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.window = _window(getattr(module, "config", None))
        self._last_mlps: list[str] = []
        self._cascades = False
        self.vocabulary, self.takes_masks = 0, False
        self._try_out()

    @property
    def module(self) -> nn.Module:
        """The module."""
        module = self._module()
        if module is None:
            raise ReferenceError("the module is gone")
        return module

    @property
    def cascades(self) -> bool:
        """Whether passes may be given `preambles`; never where gradients are recorded."""
        return self._cascades and not torch.is_grad_enabled()

    def __call__(
        self,
        tokens: Tensor,
        rows: Tensor,
        *,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,  # noqa: ANN401 - a transformers Cache
        preambles: Sequence[Share] = (),
        recomputed: bool = False,
    ) -> Tensor:
        """Run the module.

        Args:
            tokens: `[B, L]`, int64.
            rows: `[R]`: which of the B · L positions to return, in ascending order.
            visible: `[B, 1, L, K]`, bool: which of K tokens each sees; needs `takes_masks`. None: those
                before it and itself.
            positions: `[B, L]`; None: from 0.
            cache: Keys and values of earlier tokens, in transformers' interface.
            preambles: What rows begin with besides, seen by all of their tokens; needs `cascades`, and
                `visible` and `positions`.
            recomputed: Whether layers are computed again in a backward pass, and must find all as it was.

        Returns:
            Logits `[R, V]` in the module's dtype.
        """
        arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": cache is not None}
        if visible is not None:
            arguments["attention_mask"] = additive(visible, self.dtype)
        if positions is not None:
            arguments["position_ids"] = positions
        if cache is not None:
            arguments["past_key_values"] = cache
        with ExitStack() as shortcuts:
            if preambles:
                arguments["preambles"] = preambles
                shortcuts.enter_context(cascading(self.module))
            # Layers that are recomputed would not find the hook.
            for name in [] if recomputed and torch.is_grad_enabled() else self._last_mlps:
                shortcuts.enter_context(_only(self.module.get_submodule(name), rows))
            picked = shortcuts.enter_context(_picking(_heads(self.module), rows))
            logits: Tensor = self.module(**arguments).logits
        return logits[0] if picked else _picked(logits, rows)

    def read_preamble(self, tokens: Tensor) -> PreambleCache:
        """Read `[1, P]` tokens that others are to follow; never where layers are recomputed."""
        cache = PreambleCache()
        self(tokens, tokens.new_zeros(0), cache=cache)
        cache.close(tokens.shape[1])
        return cache

    @torch.no_grad()
    def _try_out(self) -> None:
        """Find out what gives the module's own logits on a few tokens; the rest is not used.

        Attention with fixed biases (ALiBi), recurrence and the like do not honour masks and positions;
        readings then stand alone.
        """
        device, length = self.device, _PROBE_LENGTH
        tokens = torch.arange(1, 2 * length + 1, device=device).reshape(2, -1)
        tokens[1, :2] = tokens[0, :2]  # two sequences that begin alike
        ends = torch.tensor([length - 1, 2 * length - 1], device=device)
        expected = self(tokens, ends).float()
        if bool(expected.isnan().any()):
            raise NotFinite("the logits are NaN or infinite")
        exact = self.dtype in (torch.float32, torch.float64)
        exact = exact and not getattr(self.module, "is_quantized", False)  # int8 rounds states, too
        tolerance = (1e-4 if exact else 5e-2) * float(expected.abs().max())
        places = torch.arange(length, device=device)

        def holds(run: Callable[[], Tensor]) -> bool:
            try:
                return float((expected - run().float()).abs().max()) <= tolerance
            except _REFUSALS:
                return False

        def packed() -> Tensor:  # both in one row, the second behind the first
            size = 2 * length - 2
            visible = torch.ones(size, size, dtype=torch.bool, device=device).tril()
            visible[length:, 2:length] = False
            return self(
                torch.cat([tokens[0], tokens[1, 2:]])[None],
                torch.tensor([length - 1, size - 1], device=device),
                visible=visible[None, None],
                positions=torch.cat([places, places[2:]])[None],
            )

        def cascaded() -> Tensor:  # what they begin with read before
            rest = length - 2
            causal = torch.ones(1, 1, rest, rest, dtype=torch.bool, device=device).tril()
            return self(
                tokens[:, 2:],
                torch.tensor([rest - 1, 2 * rest - 1], device=device),
                visible=causal,
                positions=places[2:].expand(2, -1),
                preambles=[Share(self.read_preamble(tokens[:1, :2]), None)],
            )

        self.vocabulary = expected.shape[1]
        matters = float((expected[0] - expected[1]).abs().max()) > 2 * tolerance
        self.takes_masks = matters and holds(packed)
        self._last_mlps = _last_mlps(self.module)
        if not holds(lambda: self(tokens, ends)):
            self._last_mlps = []
        self._cascades = self.takes_masks and holds(cascaded)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where `visible`, and the lowest number of `dtype` elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, torch.finfo(dtype).min
    )


@contextmanager
def _picking(heads: Sequence[nn.Module], rows: Tensor) -> Iterator[list[bool]]:
    """Let modules see the states that are read only: `[1, R, D]`; say whether they were called."""
    called: list[bool] = []

    def keep_rows(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        called.append(True)
        return (_picked(inputs[0], rows)[None], *inputs[1:])

    handles = [head.register_forward_pre_hook(keep_rows) for head in heads]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _only(mlp: nn.Module, rows: Tensor) -> Iterator[None]:
    """Let the last layer's MLP compute the states that are read only; the others add nothing."""
    rows = (
        rows if len(rows) else rows.new_zeros(1)
    )  # a mixture of experts may need something to mix
    shape: list[torch.Size] = []

    def spread(_: nn.Module, __: object, output: Tensor) -> Tensor:
        full = output.new_zeros(shape[-1].numel() // shape[-1][-1], output.shape[-1])
        return full.index_copy_(0, rows.to(full.device), output[0]).reshape(*shape[-1][:-1], -1)

    def keep_rows(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape.append(inputs[0].shape)
        return (_picked(inputs[0], rows)[None], *inputs[1:])

    handles = [mlp.register_forward_pre_hook(keep_rows), mlp.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _heads(module: nn.Module) -> list[nn.Module]:
    """Return the output heads of all passes; none where one has none."""
    finds = [getattr(each, "get_output_embeddings", None) for each in passes_of(module)]
    heads = [find() if callable(find) else None for find in finds]
    found = [head for head in heads if isinstance(head, nn.Module)]
    return found if len(found) == len(heads) else []


def _last_mlps(module: nn.Module) -> list[str]:
    """Return the names of the last layers' MLPs, one a pass; none where a pass does not have just one."""
    passes = passes_of(module)
    layers = getattr(text_config(getattr(passes[0], "config", None)), "num_hidden_layers", None)
    if not isinstance(layers, int):
        return []
    ending = f".{layers - 1}.mlp"
    found = [name for name, _ in module.named_modules() if name.endswith(ending)]
    return found if len(found) == len(passes) else []


def _picked(states: Tensor, rows: Tensor) -> Tensor:
    return states.reshape(-1, states.shape[-1]).index_select(0, rows.to(states.device))


def _window(config: Any) -> int | None:  # noqa: ANN401 - any model's configuration
    """The shortest sliding window or chunk of a model; None: every layer sees everything."""
    text = text_config(config)
    kinds = getattr(text, "layer_types", None)
    if "local" in (getattr(text, "attention_layers", None) or ()):  # GPT-Neo
        return int(text.window_size)
    if "chunked_attention" in (kinds or ()):
        return int(text.attention_chunk_size)
    window = getattr(text, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window) if getattr(text, "use_sliding_window", True) else None


def text_config(config: Any) -> Any:  # noqa: ANN401 - any model's configuration
    """Return the part of a configuration that is the language model's; None of None."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config
