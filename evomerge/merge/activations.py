"""Statistics of a live model's activations, by the names of the tensors in its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.tables import Array
from evomerge.inference.activations import LayerInputs, moments_by_tensor
from evomerge.merge.live import LiveModel
from evomerge.merge.statistics import forget_statistics, write_statistics

Sequences = Sequence[Sequence[int]]


def activations(
    model: LiveModel, job: ActivationsJob, prompts: Sequence[Sequences]
) -> ActivationsFound:
    """Write the job's models and return what enters their linear layers.

    Args:
        model: Over all of them.
        job: Which.
        prompts: Tokens that each of its `experts` reads; of a job without some, what its candidate reads.

    Raises:
        MergeError: As of `moments_in_merge`.
    """
    if job.experts:
        experts = [one.candidate for one in job.experts]
        merged = moments_in_merge(model, job.candidate, experts, prompts)
        return ActivationsFound(merged=tuple(merged))
    model.write(job.candidate)
    squares, moments = moments_by_tensor(model.module, prompts[0], full=job.moments)
    return ActivationsFound(_by_file(model, squares), _by_file(model, moments))


def moments_in_merge(
    model: LiveModel, merge: Merge, experts: Sequence[Merge], prompts: Sequence[Sequences]
) -> list[dict[str, Array]]:
    """Return second moments of what enters the experts' layers where those before are merged (2508.03121).

    Layer after layer, each expert's own reads what the merged ones before it make of that expert's prompts;
    then the layer is merged by these moments, and what it makes enters the next.

    Args:
        model: Over base and experts; it holds no whole model after it.
        merge: Of the experts, by regmean.
        experts: Each as it is, in the order of the merge.
        prompts: Of each, tokens.

    Returns:
        Of each, tensor → mean of x xT, float32 `[columns, columns]`.

    Raises:
        MergeError: The model cannot be read or written layer by layer, or the maths has no answer.
    """
    model.write_layer(merge, None)
    layers = model.layers()
    inputs = [LayerInputs(model.module, layers, own) for own in prompts]
    found: list[dict[str, Array]] = [{} for _ in experts]
    for number in range(len(layers)):
        own = []
        for expert, read in zip(experts, inputs, strict=True):
            model.write_layer(expert, number)
            own.append(_by_file(model, read.moments(number)))
        for each, more in zip(found, own, strict=True):
            each |= more
        if number + 1 < len(layers):
            _merge_layer(model, merge, number, own)
            for read in inputs:
                read.advance(number)
    return found


def _merge_layer(
    model: LiveModel, merge: Merge, number: int, moments: Sequence[Mapping[str, Array]]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{number}.safetensors"
        write_statistics(path, [({}, {}, one) for one in moments])
        fixed = {**merge.fixed, "merged_features": True}
        try:
            model.write_layer(replace(merge, fixed=fixed, statistics=str(path)), number)
        finally:
            for memory in model.memories.values():
                memory.inputs.clear()  # which hold the file open
            forget_statistics()


def _by_file(model: LiveModel, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    known, stored = model.models.base.tensors, model.stored_as
    return {stored(n): one.numpy() for n, one in tensors.items() if stored(n) in known}
