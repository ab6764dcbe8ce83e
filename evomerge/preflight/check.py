"""Everything that can be wrong with a campaign, before any time is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.candidate.trial import SPLITS, Split
from evomerge.config import Campaign
from evomerge.config.faults import at_field, located
from evomerge.errors import CampaignError, TaskError
from evomerge.kinds import SearchSpace, check_base, space_of
from evomerge.merge.methods.core_space import CORE_SPACE
from evomerge.merge.quantise import check_package
from evomerge.merge.statistics import Statistics, look_in
from evomerge.merge.user_methods import MethodFile
from evomerge.preflight.adapters import check_adapters
from evomerge.preflight.family import OpenFamily, check_weights, open_family
from evomerge.preflight.sampler_choice import check_race, with_sampler
from evomerge.preflight.teachers import asked, check_teachers, folder_of, requests_of
from evomerge.preflight.typos import check_names
from evomerge.scoring import LmEvalBackend, VllmScorer, backend_type, is_resident, open_backend
from evomerge.search.samplers import sampler_class
from evomerge.space import Needs
from evomerge.store import TASKS
from evomerge.tasks import Items, Prompts, PromptStyle, SplitPlan, TaskRequest, load_items
from evomerge.tasks.metrics import TEACHER_DIVERGENCE

FINAL_SPLITS: tuple[Split, ...] = ("select", "holdout")
"""On which the reported metric is scored, too."""


@dataclass(frozen=True)
class Preflight:
    """A campaign that can run, and all that was opened to find out.

    Attributes:
        campaign: The settings.
        family: The checked models.
        space: The searched space.
        requests: The tasks, for the workers.
        plan: The splits, for the workers.
        prompt: Prompt style, for the workers.
        items: The items of every split.
        prompts: What stands in the files of prompts, of the objectives that have one.
        methods: The user's merge methods; None: the campaign names no file of such.
        results: The results folder, which may not be there yet.
    """

    campaign: Campaign
    family: OpenFamily
    space: SearchSpace
    requests: tuple[TaskRequest, ...]
    plan: SplitPlan
    prompt: PromptStyle
    items: Items
    prompts: tuple[Prompts, ...] = ()
    methods: MethodFile | None = None
    results: Path = Path()

    @property
    def one_pass(self) -> bool:
        """Whether candidates need nothing of a merge but its result: no gradients, statistics or algebra."""
        given = {name for part in self.campaign.space.parts for name in part.parameters}
        algebra = {"calibrate", CORE_SPACE} & given
        descends = sampler_class(self.campaign).needs_gold
        return not (descends or self.space.needs.statistics or algebra)


def preflight(
    campaign: Campaign,
    file: Path | None = None,
    results: Path | None = None,
    began_with: Mapping[str, str] | None = None,
) -> Preflight:
    """Check a campaign against its models and tasks.

    Args:
        campaign: The settings.
        file: Where they were read from; errors then name this file and the line of the field.
        results: The results folder of a campaign that began: it has the answers of teachers to the
            campaign's prompts, and the merge methods of its file; None: items have stand-ins for answers.
        began_with: Name → model of the experts that the campaign had when it began: its space is laid out
            over them where it cannot be over those of now, whose number or names it may not take.

    Raises:
        UserError: Naming the field, what was found and what was expected.
    """
    with located(file):
        return _preflight(campaign, results, began_with)


def with_answers(ready: Preflight, answers: Path, file: Path | None = None) -> Preflight:
    """Return a checked campaign whose prompts teachers answered meanwhile. Raises as `preflight` does.

    Args:
        ready: As it was checked with stand-ins for answers.
        answers: The folder of the answers.
        file: As of `preflight`.
    """
    requests = requests_of(ready.campaign, answers)
    with located(file):
        items = _load_items(ready.campaign, ready.family, requests, ready.plan, ready.prompt)
        check_teachers(ready.campaign, ready.family, items)
    return replace(ready, requests=requests, items=items)


def _preflight(
    campaign: Campaign, results: Path | None, began_with: Mapping[str, str] | None
) -> Preflight:
    check_names(campaign, results=results)
    check_sampler(campaign)
    check_costs(campaign)
    check_budget(campaign)
    family = open_family(campaign.models)
    try:
        space = space_of(campaign.space, family.family, campaign.search.seed)
    except CampaignError:
        if began_with is None:
            raise
        began = replace(family.family, experts=began_with)
        space = space_of(campaign.space, began, campaign.search.seed)
    check_base(campaign.space, family.base)
    check_adapters(campaign, family)
    if not space.distributions:
        raise CampaignError(
            "nothing is searched: every parameter is fixed; give one a range, such as "
            "weight: {low: 0.0, high: 1.0}",
            field="space.parameters",
        )
    plan = split_plan(campaign)
    prompt = PromptStyle(**campaign.prompt.model_dump())
    prompts = asked(campaign, family)
    with folder_of(prompts, None if results is None else results / TASKS) as folder:
        requests = requests_of(campaign, folder)
        items = _load_items(campaign, family, requests, plan, prompt)
    check_teachers(campaign, family, items)
    check_needs(campaign, space.needs, items)
    check_quantised(campaign, space.needs)
    if results is None:
        check_statistics(campaign, space.needs, family)
    campaign = with_sampler(campaign, space, items)
    check_race(campaign, items)
    check_weights(family)  # reads all of it, so after all that is told by less
    methods = MethodFile.of(campaign, results)
    place = Path(campaign.out) if results is None else results
    look_in(place)
    own = (methods, place)
    return Preflight(campaign, family, space, requests, plan, prompt, items, prompts, *own)


def split_plan(campaign: Campaign) -> SplitPlan:
    """Return the campaign's splits as the score room takes them."""
    items = campaign.items
    return SplitPlan(
        counts={split: getattr(items, split) for split in SPLITS},
        seed=items.seed,
        drawn_from={split: getattr(items.drawn_from, split) for split in SPLITS},
    )


def check_sampler(campaign: Campaign) -> None:
    """Check that the sampler fits the objectives. Raises CampaignError."""
    if campaign.search.sampler != "auto":
        sampler_class(campaign)
    if campaign.mode == "pareto" and len(campaign.objectives) + len(campaign.costs) < 2:
        raise CampaignError("a Pareto front needs two objectives or more, found 1", field="mode")


def check_costs(campaign: Campaign) -> None:
    """Check that the scorer measures what costs are asked for. Raises CampaignError."""
    backend = campaign.scorer.backend
    if "time" in campaign.asked_costs and not is_resident(backend):
        raise CampaignError(
            f'found "{backend}", but time is measured by the resident scorer only; leave it out, or take '
            "active_parameters in place of time",
            field="scorer.backend",
        )
    if "generated_tokens" in campaign.asked_costs and backend_type(backend) is LmEvalBackend:
        raise CampaignError(
            f'found "{backend}", but generated_tokens are not counted by lm-eval\'s models; leave them '
            "out, or take the resident scorer",
            field="scorer.backend",
        )


def check_quantised(campaign: Campaign, needs: Needs) -> None:
    """Check that candidates can be scored with quantised weights. Raises CampaignError."""
    if campaign.scorer.quantise is None:
        return
    with at_field("scorer.quantise", CampaignError):
        check_package(campaign.scorer.quantise)
        if needs.whole_models > 1:
            raise CampaignError(
                f'found "{campaign.scorer.quantise}", but these candidates hold {needs.whole_models} models '
                "at once, and only merges and routed ensembles are quantised; leave it out"
            )


def check_budget(campaign: Campaign) -> None:
    """Check that the budget pays for a trial. Raises CampaignError."""
    budget, each = campaign.search.item_evaluations, campaign.items_per_trial
    if budget is not None and budget < each:
        raise CampaignError(
            f"found {budget}, expected {each} or more: so many items are scored for one trial",
            field="search.item_evaluations",
        )


def check_needs(campaign: Campaign, needs: Needs, items: Items) -> None:
    """Check that scorer and metrics give what candidates learn from. Raises CampaignError."""
    if needs.prompts and not is_resident(campaign.scorer.backend):
        raise CampaignError(
            f'found "{campaign.scorer.backend}", but these candidates learn from prompts, which only the '
            "resident scorer reads; leave it out",
            field="scorer.backend",
        )
    if needs.feed_forwards and campaign.workers.gpus > 1:
        raise CampaignError(
            f"found {campaign.workers.gpus:g}, but mixtures of experts are built on one GPU; take 1",
            field="workers.gpus",
        )
    for position, goal in enumerate(campaign.objectives):
        fault = items.race_fault(goal.task, goal.metric) if needs.scores else None
        if fault is not None:
            raise CampaignError(
                f"{fault}, and these candidates learn from such a number; take another metric",
                field=f"objectives.{position}.metric",
            )


def check_statistics(campaign: Campaign, needs: Needs, family: OpenFamily) -> None:
    """Check a file of the user's against the experts, before it is copied. Raises CampaignError."""
    if campaign.statistics is None:
        return
    with at_field("statistics", CampaignError):
        if not needs.statistics:
            raise CampaignError(
                "no method of this campaign reads it; set importance: true, or leave it out"
            )
        given = Statistics(Path(campaign.statistics))
        given.check(list(family.family.experts.values()), family.checkpoints)


def _load_items(
    campaign: Campaign,
    family: OpenFamily,
    requests: tuple[TaskRequest, ...],
    plan: SplitPlan,
    prompt: PromptStyle,
) -> Items:
    try:
        items = load_items(
            requests,
            tokenizer=family.tokenizer,
            tasks_path=campaign.tasks_path,
            plan=plan,
            prompt=prompt,
            allow_unsafe_code=campaign.scorer.allow_unsafe_code,
            trust_remote_code=campaign.models.trust_remote_code,
        )
    except TaskError as error:
        places = {
            f"objectives.{i}.{'prompts' if goal.prompts else 'task'}": goal.task
            for i, goal in enumerate(campaign.objectives)
        }
        field = next((f for f, task in places.items() if f'"{task}"' in error.message), None)
        raise TaskError(
            error.message, file=error.file, line=error.line, field=error.field or field
        ) from error
    for position, goal in enumerate(campaign.objectives):
        with at_field(f"objectives.{position}.metric"):
            if goal.metric == TEACHER_DIVERGENCE:
                raise TaskError(
                    f"{TEACHER_DIVERGENCE} is known once a search began, so that it can be reported but not "
                    "searched; take gold_loglikelihood, or teacher_match of prompts"
                )
            items.check_metric(goal.task, goal.metric, SPLITS)
        with at_field(f"objectives.{position}.report"):
            items.check_metric(goal.task, goal.report, FINAL_SPLITS)
    if campaign.scorer.backend != "resident":
        with at_field("scorer.backend", own=True):
            backend = open_backend(campaign.scorer.backend, items, campaign.scorer.args)
            backend.check({g.task: (g.metric, g.report) for g in campaign.objectives})
            if isinstance(backend, VllmScorer):
                backend.check_model(family.base.config, campaign.workers.gpus)
    return items
