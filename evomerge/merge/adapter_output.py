"""A merge, or a fine-tuned model, as one LoRA adapter of its base.

A weighted sum of adapters on one base is written as it is: their factors side by side, of the sum of their
ranks. Everything else, and what is to have a smaller rank, is the nearest update of that rank, layer by
layer: of its singular vectors those of the largest singular values (Eckart and Young 1936;
`mergekit-extract-lora` does the same). Embeddings, norms, biases and the output head stay the base's:
adapters that every server takes do not hold them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from evomerge.candidate import Merge, Recipe
from evomerge.candidate import save as save_recipe
from evomerge.errors import MergeError, ModelError, RecipeError, UserError
from evomerge.merge.adapter_file import PREFIX
from evomerge.merge.card import default_card
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.engine import MergeRun
from evomerge.merge.family import merged_names
from evomerge.merge.location import commit, locate, split_adapter
from evomerge.merge.methods import algebra
from evomerge.merge.methods.low_rank import Factors, joined
from evomerge.merge.methods.method import SUM
from evomerge.merge.names import auto_class, parameter_names
from evomerge.merge.plan import TensorPlan
from evomerge.merge.saving import check_inputs, finished_folder, open_run, refuse_taken
from evomerge.merge.statistics import copy_statistics
from evomerge.merge.user_methods import copy_beside

SAME_SUM = 1e-8  # factors of models that sum to 1 within this leave the base whole


@dataclass(frozen=True)
class Truncated:
    """What an adapter has of a model.

    Attributes:
        folder: Of the adapter.
        rank: Of its updates.
        kept: Share of the task vector's squared norm that it has, in [0, 1].
        worst: The layer of which it has the smallest share, and that share.
        left: Tensors that differ from the base's and that it cannot change.
    """

    folder: Path
    rank: int
    kept: float
    worst: tuple[str, float]
    left: tuple[str, ...]

    def text(self) -> str:
        """Return it in words, a line each."""
        layer, share = self.worst
        lines = [f"rank {self.rank}; lost of the squared norm of the change: {1 - self.kept:.2g}"]
        if self.rank and share < 1:
            lines[0] += f" (of a layer at most {1 - share:.2g}: {layer})"
        if self.left:
            more = f" and {len(self.left) - 3} more" if len(self.left) > 3 else ""
            names = ", ".join(self.left[:3])
            lines.append(f"an adapter cannot hold {names}{more}: they stay the base's")
        return "\n".join(lines)


def save_adapter(
    source: Merge | Recipe,
    out: Path | str,
    *,
    rank: int,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    merges: Mapping[str, Recipe] = MappingProxyType({}),
) -> Truncated:
    """Write a merge as an adapter of its base: `adapter_model.safetensors`, its config, recipe and card.

    Args:
        source: What to merge.
        out: The folder; its parents are made.
        rank: Of the updates at most.
        device: Where the maths is done.
        dtype: Of the file; None: float32.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        merges: Name → merge that `source` names as one of its models.

    Raises:
        UserError: The rank is below 1.
        RecipeError: The recipe is wrong, names no base, or changes its layers or vocabulary.
        ModelError: A model is missing, damaged, or of another family, or has no linear layers.
        ResultsError: `out` exists, or cannot be made.
        MergeError: The maths has no answer, the merge is the base, or the disk does not take the result.
    """
    if rank < 1:
        raise UserError(f"found a rank of {rank}, expected at least 1", field="as_lora")
    out = Path(out)
    refuse_taken(out, replace=False)
    recipe = source.recipe() if isinstance(source, Merge) else source
    name = _base_of(recipe)
    models, run = open_run(
        source,
        merges,
        device=usable_device(device),
        dtype="float32",
        base=name,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    check_inputs(run.plan.tensors, models)
    base = models.base
    _check_layers(run, base)
    updates = ((piece.name, _update(run, piece, base)) for piece in run.plan.tensors)
    with finished_folder(out) as aside:
        made = _write(base, updates, aside, rank, dtype or "float32", trust_remote_code)
        save_recipe(recipe, aside / "recipe.yaml", merges)
        copy_beside((one.method for one in (recipe, *merges.values())), aside)
        copy_statistics(recipe, aside, merges)
        card = default_card(recipe, out.name, merges, adapter=(name, made.text()))
        (aside / "README.md").write_text(card, encoding="utf-8")
    return Truncated(out, made.rank, made.kept, made.worst, made.left)


def write_adapter(
    base: Checkpoint, expert: Checkpoint, folder: Path, *, rank: int, device: str = "cpu"
) -> Truncated:
    """Write the adapter that makes of a base the model most like another one; PEFT loads it.

    Args:
        base: What it is for.
        expert: What it is to be like, of the same architecture and vocabulary.
        folder: Where, a new folder.
        rank: Of the updates at most.
        device: Where singular values are computed.

    Raises:
        ModelError: The architecture has no linear layers that an adapter could change, or a tensor is not
            finite.
        MergeError: Nothing that an adapter could change differs from the base.
    """
    updates = ((name, _task_vector(base, expert, name, device)) for name in base.tensors)
    return _write(base, updates, folder, rank)


def truncated(update: Factors | Tensor, rank: int) -> tuple[Factors, float, float]:
    """Return the update of a rank, or of its own smaller one, that is nearest to another.

    Args:
        update: Factors, or a matrix in float32 on the device of the maths.
        rank: At most.

    Returns:
        The factors, float64 or float32, scale 1; both have the same singular values unless they are those
        given. The squared norm of the update, and of that what they have.
    """
    if isinstance(update, Factors):
        left, right = joined([update], [1.0])
        if not update.rank:
            return update, 0.0, 0.0
        vectors, values = _singular(left, right)
        whole = float(values.square().sum())
        if update.rank <= rank:
            return Factors(left, right), whole, whole
    else:
        first, values, second = torch.linalg.svd(update, full_matrices=False)
        vectors = first, second
        whole = float(update.double().square().sum())
    count = min(rank, len(values))
    roots = values[:count].sqrt()
    found = Factors(vectors[0][:, :count] * roots, roots[:, None] * vectors[1][:count])
    if isinstance(update, Factors):
        return found, whole, float(values[:count].square().sum())
    near = found.left @ found.right
    return found, whole, whole - float((update - near).double().square().sum())


def linear_modules(config: PretrainedConfig, *, trust_remote_code: bool = False) -> set[str]:
    """Return the names of a model's linear layers, its head apart."""
    with torch.device("meta"):
        model = auto_class(config).from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _write(
    base: Checkpoint,
    updates: Iterable[tuple[str, Factors | Tensor]],
    folder: Path,
    rank: int,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> Truncated:
    modules = linear_modules(base.config, trust_remote_code=trust_remote_code)
    if not modules:
        raise ModelError(
            f"{base.config.model_type} has no linear layers besides its head, which a LoRA adapter changes",
            file=base.name,
        )
    parameters = parameter_names(base.config, base.tensors, trust_remote_code=trust_remote_code)
    whole = kept = 0.0
    found: dict[str, Factors] = {}
    shares: dict[str, float] = {}
    left = []
    for name, update in updates:
        own = parameters.get(name, name)
        module = own.removesuffix(".weight")
        if module in modules and own != module:
            found[module], squared, near = truncated(update, rank)
            whole, kept = whole + squared, kept + near
            if squared:
                shares[module] = near / squared
        elif squared := _squared(update):
            whole += squared
            left.append(name)
    changed = {_kind(module) for module in shares}
    if not changed:
        raise MergeError("the linear layers are those of the base: no adapter is needed")
    held = {module: one for module, one in found.items() if _kind(module) in changed}
    made = write_factors(base.name, held, folder, dtype)
    worst = min(shares, key=lambda module: shares[module])
    return Truncated(folder, made, kept / whole, (worst, shares[worst]), tuple(left))


def write_factors(
    base: str, updates: Mapping[str, Factors], folder: Path, dtype: str = "float32"
) -> int:
    """Write an adapter that adds exactly this to a base; PEFT loads it.

    Args:
        base: Its name.
        updates: Linear layer → what is added to its weight; one at least.
        folder: Where; it is made.
        dtype: Of the file.

    Returns:
        Its rank.
    """
    from peft import LoraConfig

    made = max(one.rank for one in updates.values())
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, one in updates.items():
        for letter, factor in zip("AB", _padded(one, made), strict=True):
            key = f"{PREFIX}{module}.lora_{letter}.weight"
            tensors[key] = factor.to("cpu", torch_dtype(dtype))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(
        task_type="CAUSAL_LM",
        r=made,
        lora_alpha=made,
        target_modules=sorted(set(map(_kind, updates))),
        base_model_name_or_path=_written(base),
        inference_mode=True,
    ).save_pretrained(folder)
    _sort_targets(folder / "adapter_config.json")
    return made


def _kind(module: str) -> str:
    return module.rpartition(".")[2]


def _sort_targets(file: Path) -> None:
    """Give the target modules an order, which PEFT's set of them has not."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _padded(factors: Factors, rank: int) -> tuple[Tensor, Tensor]:
    """Return `A` `[rank, in]` and `B` `[out, rank]`, filled up with zeros: every server takes one rank."""
    left, right = factors.left, factors.right
    a, b = right.new_zeros(rank, right.shape[1]), left.new_zeros(left.shape[0], rank)
    a[: factors.rank], b[:, : factors.rank] = right, left
    return a, b


def _singular(left: Tensor, right: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the singular vectors and values of a product, without forming it."""
    first, stretched, inner = algebra.svd(left)
    other, squeezed, second = algebra.svd(right)
    core = algebra.product(stretched[:, None] * inner, other * squeezed)
    turned, values, back = algebra.svd(core)
    return (algebra.product(first, turned), algebra.product(back, second)), values


def _squared(update: Factors | Tensor) -> float:
    if isinstance(update, Factors):
        return truncated(update, update.rank)[1]
    return float(update.double().square().sum())


def _update(run: MergeRun, piece: TensorPlan, base: Checkpoint) -> Factors | Tensor:
    """Return what a merge adds to a tensor of the base: factors where it is a sum of such."""
    exact = exact_update(run, piece, base)
    if exact is not None:
        return exact
    with torch.no_grad():
        merged = run.merged(piece, shared=True)
        return _finite(merged - base.tensor(piece.name).to(merged), piece.name, base)


def exact_update(run: MergeRun, piece: TensorPlan, base: Checkpoint) -> Factors | None:
    """Return what a merge adds to a tensor of the base as factors; None: it is no weighted sum of such."""
    effect = run.plan.method.effect(piece.shared, piece.own, piece.base)
    inputs = run.inputs(piece)
    weights = {index: factor for index, factor in effect.parts.items() if isinstance(factor, float)}
    if effect.rule == SUM and not piece.added and abs(sum(weights.values()) - 1) < SAME_SUM:
        found = [inputs.low_rank(index) for index in weights]
        factors = [one for one in found if one is not None]
        same = base.key(piece.name) == inputs.common
        if same and len(factors) == len(weights):
            return Factors(*joined(factors, list(weights.values())))
    return None


def _task_vector(base: Checkpoint, expert: Checkpoint, name: str, device: str) -> Tensor:
    found = expert.tensor(name).to(device).float() - base.tensor(name).to(device).float()
    return _finite(found, name, expert)


def _finite(update: Tensor, name: str, model: Checkpoint) -> Tensor:
    if not update.isfinite().all():
        raise ModelError(f"{name} is not finite, or not the base's", file=model.name)
    return update


def _base_of(recipe: Recipe) -> str:
    """Return the model that an adapter is for: the recipe's base, or what its models are adapters on."""
    bodies = {split_adapter(model)[0] for model in recipe.model_names()}
    name = recipe.base_model or (bodies.pop() if len(bodies) == 1 else None)
    if name is None:
        raise RecipeError(
            "names no base that an adapter could be for, and its models are not all adapters on one; add "
            "base_model",
            field="base_model",
        )
    if split_adapter(name)[1] is not None:
        raise RecipeError(
            f"found {name}, a model with an adapter on it; expected a model without one, for which the "
            "new adapter is made",
            field="base_model",
        )
    return name


def _check_layers(run: MergeRun, base: Checkpoint) -> None:
    names = {piece.name for piece in run.plan.tensors}
    if names != set(merged_names(base)):
        raise RecipeError(
            f"makes another number of layers than {base.name} has; no adapter does that",
            field="slices",
        )
    for piece in run.plan.tensors:
        found, own = run.header(piece).shape, base.tensors[piece.name].shape
        if found != own:
            raise RecipeError(
                f"{piece.name} of the merge is {list(found)}, of {base.name} {list(own)}; an adapter keeps "
                "the base's vocabulary",
                field="tokenizer",
            )


def _written(model: str) -> str:
    """Name a model so that it is found from any folder."""
    folder = locate(model)
    return str(folder.resolve()) if commit(model, folder) is None else model
