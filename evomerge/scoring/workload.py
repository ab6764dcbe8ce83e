"""What has to be run to score a split: readings and prompts, tokenised once, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder, Reading
from evomerge.inference.generation import Prompt
from evomerge.inference.stopping import Tokens
from evomerge.tasks.answers import Gold
from evomerge.tasks.rendering import Leaf

_MAX_GENERATED = 256  # HFLM's default
_GREEDY_OPTIONS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


@dataclass
class Part:
    """One leaf's share of a workload.

    Attributes:
        leaf: The documents.
        of_requests: Reading → the request that it belongs to, counted over all documents; for readings
            from `first_request_reading` on.
        first_request_reading: See above.
        of_gold: Reading → document, for readings of gold answers from `first_gold_reading` on; a document
            without gold answer, or with one that has no tokens of its own, has none.
        first_gold_reading: See above.
        first_prompt: The leaf's first prompt; None: nothing is generated.
        cut: Documents that were cut to the model's context.
    """

    leaf: Leaf
    of_requests: list[int] = field(default_factory=list)
    first_request_reading: int = 0
    of_gold: list[int] = field(default_factory=list)
    first_gold_reading: int = 0
    first_prompt: int | None = None
    cut: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Workload:
    """Everything that is run, in one go for all tasks.

    Attributes:
        readings: Sequences to score.
        prompts: Sequences to continue.
        parts: Whose they are.
    """

    readings: list[Reading]
    prompts: list[Prompt]
    parts: list[Part]


@dataclass(frozen=True)
class Need:
    """What the asked metrics need of a leaf.

    Attributes:
        leaf: The documents.
        requests: The answers to lm-eval's requests.
        gold: The gold answers' tokens, of the documents that have one.
    """

    leaf: Leaf
    requests: bool
    gold: bool


def lay_out(needs: Sequence[Need], encoder: Encoder) -> Workload:
    """Tokenise what the asked metrics need.

    Raises:
        TaskError: A continuation is empty, a task samples or generates more than the context holds.
    """
    work = Workload([], [], [])
    for need in needs:
        part = Part(need.leaf)
        work.parts.append(part)
        kind = str(need.leaf.task.OUTPUT_TYPE)
        if kind == "generate_until":
            if need.requests:
                part.cut |= _add_prompts(work, part, encoder)
            if need.gold:
                part.cut |= _add_gold_texts(work, part, encoder)
        elif kind == "loglikelihood_rolling":
            _add_windows(work, part, encoder)
        else:
            part.cut |= _add_pairs(work, part, encoder, only_gold=not need.requests)
    return work


@dataclass(frozen=True)
class Excerpt:
    """Some documents of one leaf.

    Attributes:
        work: All of the leaf, laid out.
        leaf: The chosen documents, as a leaf of their own.
        positions: Where they stand in it, ascending.
    """

    work: Workload
    leaf: Leaf
    positions: Sequence[int]


def gather(excerpts: Sequence[Excerpt]) -> Workload:
    """Put excerpts together, as if `lay_out` had been asked for the chosen documents alone."""
    found = Workload([], [], [])
    for excerpt in excerpts:
        (whole,) = excerpt.work.parts
        number = {position: index for index, position in enumerate(excerpt.positions)}
        part = Part(excerpt.leaf, cut={number[each] for each in whole.cut if each in number})
        found.parts.append(part)
        counts = [len(requests) for requests in whole.leaf.requests]
        owners = [document for document, count in enumerate(counts) for _ in range(count)]
        kept = [request for request, document in enumerate(owners) if document in number]
        new = {request: index for index, request in enumerate(kept)}
        readings = excerpt.work.readings
        part.first_request_reading, part.of_requests = _take(
            found, readings[whole.first_request_reading :], whole.of_requests, new
        )
        part.first_gold_reading, part.of_gold = _take(
            found, readings[whole.first_gold_reading :], whole.of_gold, number
        )
        if whole.first_prompt is not None:
            part.first_prompt = len(found.prompts)
            prompts = excerpt.work.prompts[whole.first_prompt :]
            found.prompts.extend(prompts[position] for position in excerpt.positions)
    return found


def generation_prompt(task: str, tokens: Tokens, given: dict[str, Any], encoder: Encoder) -> Prompt:
    """Make a prompt of a request's tokens, cut from the left as HFLM cuts, and its generation options.

    Args:
        task: The task's name, for messages.
        tokens: The encoded context.
        given: The request's `generation_kwargs`.
        encoder: Knows how long the model's context is, and makes the stop rule.

    Raises:
        TaskError: The request samples, has unknown options, or generates more than the context holds.
    """
    options = _options(task, given)
    limit = int(options["max_gen_toks"])
    room = encoder.max_length - limit
    if room <= 0:
        raise TaskError(
            f'task "{task}" generates up to {limit} tokens, but the model\'s context '
            f"is {encoder.max_length}; lower max_gen_toks in generation_kwargs"
        )
    return Prompt(
        tokens[-room:], encoder.stopping.rule(options["until"]), limit, len(tokens) > room
    )


def _add_pairs(work: Workload, part: Part, encoder: Encoder, *, only_gold: bool) -> set[int]:
    """The requests of a multiple-choice or log-likelihood task, or only those with the gold answer."""
    leaf = part.leaf
    wanted = [
        (document, request)
        for document, (requests, gold) in enumerate(zip(leaf.requests, leaf.golds, strict=True))
        for request in (_with_gold(requests, gold) if only_gold else requests)
    ]
    pairs = _named(leaf, encoder, [(str(r.args[0]), str(r.args[1])) for _, r in wanted])
    first_group = len(work.readings)
    groups = [first_group + document for document, _ in wanted]
    readings = encoder.readings(pairs, groups, [()] * len(pairs))
    if only_gold:
        part.first_gold_reading = len(work.readings)
        part.of_gold = [document for document, _ in wanted]
    else:
        part.first_request_reading = len(work.readings)
        part.of_requests = list(range(len(wanted)))
    work.readings.extend(readings)
    return {
        document for (document, _), each in zip(wanted, readings, strict=True) if each.truncated
    }


def _with_gold(requests: Sequence[Instance], gold: Gold | None) -> Sequence[Instance]:
    return [] if gold is None else [requests[gold.choices[0]]]


def _add_windows(work: Workload, part: Part, encoder: Encoder) -> None:
    part.first_request_reading = len(work.readings)
    for document, (request,) in enumerate(part.leaf.requests):
        windows = encoder.windows(str(request.args[0]))
        first = len(work.readings)
        groups = list(range(first, first + len(windows)))
        work.readings.extend(encoder.readings(windows, groups, [()] * len(windows)))
        part.of_requests += [document] * len(windows)


def _add_gold_texts(work: Workload, part: Part, encoder: Encoder) -> set[int]:
    texts = {
        document: gold.text
        for document, gold in enumerate(part.leaf.golds)
        if gold is not None and gold.text is not None
    }
    encoded = zip(texts, encoder.pairs(list(texts.values()), empty=True), strict=True)
    pairs = {document: pair for document, pair in encoded if pair[1]}
    ends = []
    for document, (_, answer) in pairs.items():
        options = _options(part.leaf.name, part.leaf.requests[document][0].args[1])
        rule = encoder.stopping.rule(options["until"])
        # Generation that reaches its limit needs no end.
        complete = len(answer) >= int(options["max_gen_toks"])
        ends.append(() if complete else encoder.stopping.ending_tokens(rule))
    first = len(work.readings)
    readings = encoder.readings(list(pairs.values()), range(first, first + len(pairs)), ends)
    part.first_gold_reading, part.of_gold = first, list(pairs)
    work.readings.extend(readings)
    return {
        document for document, reading in zip(pairs, readings, strict=True) if reading.truncated
    }


def _add_prompts(work: Workload, part: Part, encoder: Encoder) -> set[int]:
    part.first_prompt = len(work.prompts)
    requests = [each[0] for each in part.leaf.requests]
    encoded = encoder.prompts([str(request.args[0]) for request in requests])
    work.prompts.extend(
        generation_prompt(part.leaf.name, tokens, request.args[1], encoder)
        for request, tokens in zip(requests, encoded, strict=True)
    )
    added = work.prompts[part.first_prompt :]
    return {document for document, prompt in enumerate(added) if prompt.truncated}


def _take(
    found: Workload, readings: Sequence[Reading], owners: Sequence[int], number: Mapping[int, int]
) -> tuple[int, list[int]]:
    """Add the readings of those owners that have a new number; return where they begin, and whose."""
    first = len(found.readings) if owners else 0
    taken = [
        (reading, number[owner])
        for reading, owner in zip(readings, owners, strict=False)
        if owner in number
    ]
    groups: dict[int, int] = {}
    for index, (reading, _) in enumerate(taken, start=first):
        group = groups.setdefault(reading.group, index)
        found.readings.append(replace(reading, group=group))
    return first, [owner for _, owner in taken]


def _named(
    leaf: Leaf, encoder: Encoder, pairs: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    try:
        return encoder.pairs(pairs)
    except TaskError as error:
        raise TaskError(f'task "{leaf.name}": {error.message}') from None


def _options(task: str, given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = dict(normalize_gen_kwargs(given, _MAX_GENERATED))
    unknown = sorted(set(options) - _GREEDY_OPTIONS)
    if unknown:
        raise TaskError(
            f'task "{task}": generation_kwargs has {", ".join(unknown)}; '
            f"known: {', '.join(sorted(_GREEDY_OPTIONS))}"
        )
    if options["do_sample"]:
        raise TaskError(
            f'task "{task}" samples (do_sample, temperature > 0 in generation_kwargs); '
            "only greedy generation is scored"
        )
    return options
