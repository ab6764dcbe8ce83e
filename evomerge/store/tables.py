"""Our tables in `study.db`, beside Optuna's own.

Their names begin with `evomerge_`, so that they never meet a table of Optuna's. A row is written once;
only a trial's row is changed, when its outcome is told.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 5
"""Of our tables. A database of another version is refused: no released evomerge wrote one."""

METADATA = MetaData()

META = Table(
    "evomerge_meta",
    METADATA,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)
"""`schema`, `study_id`, `trials` (the budget, as JSON, with what `resume` added), `planned_trials` (what the
sampler plans for: as it was when the campaign began), `ended` (what ended the search, as JSON),
`directions`, `facts`, `campaign`."""

RECIPE_FORMS = Table(
    "evomerge_recipe_forms",
    METADATA,
    Column("recipe_form_id", Integer, primary_key=True),
    Column("recipe", Text, nullable=False, unique=True),
)
"""Recipes whose numbers are all 0, stored once for all trials that differ in nothing else."""

TRIALS = Table(
    "evomerge_trials",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("trial_id", Integer, nullable=False),
    Column("recipe_form_id", ForeignKey(RECIPE_FORMS.c.recipe_form_id), nullable=False),
    Column("numbers", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("objectives", Text),
    Column("asked_seq", Integer, nullable=False, unique=True),
    Column("told_seq", Integer, unique=True),
)
"""What was asked, and in which order asked and told: with the params in Optuna's tables enough to replay
any sampler. A recipe's numbers are little-endian float64."""

BASELINES = Table(
    "evomerge_baselines",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("params", Text, nullable=False),
    Column("objectives", Text, nullable=False),
)
"""Points told to the sampler that no trial asked for, in the same order of events."""

DIMENSION_SETS = Table(
    "evomerge_dimension_sets",
    METADATA,
    Column("dimension_set_id", Integer, primary_key=True),
    Column("names", Text, nullable=False, unique=True),
)
"""Sorted names of dimensions, stored once for all points and gradients that have them."""

GRADIENT_STEPS = Table(
    "evomerge_gradient_steps",
    METADATA,
    Column("descent", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("items", Text, nullable=False),
    Column("dimension_set_id", ForeignKey(DIMENSION_SETS.c.dimension_set_id), nullable=False),
    Column("params", LargeBinary, nullable=False),
    Column("asked_seq", Integer, nullable=False, unique=True),
    Column("loss", Float),
    Column("gradient_set_id", ForeignKey(DIMENSION_SETS.c.dimension_set_id)),
    Column("gradients", LargeBinary),
    Column("failure", Text),
    Column("cost_items", Integer),
    Column("told_seq", Integer, unique=True),
    Column("failure_trace", Text),
)
"""Steps of the descents, in the same order of events; numbers as little-endian float64, in the order of
the dimension set."""

EVALUATIONS = Table(
    "evomerge_evaluations",
    METADATA,
    Column("evaluation_id", Integer, primary_key=True),
    Column("key", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("number", Integer),
    Column("split", String, nullable=False),
    Column("recipe", Text),
    Column("failure_kind", String),
    Column("failure_reason", Text),
    Column("merge_seconds", Float, nullable=False),
    Column("score_seconds", Float, nullable=False),
    Column("items", Integer, nullable=False),
    Column("generated_tokens", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("failure_trace", Text),
    UniqueConstraint("key", "split"),
)
"""Who (`trial.row_key`) was scored on which split; `kind` is `base`, `expert`, `baseline`, `finalist`, or
`trial` for the search scores of a trial."""

WINNERS = Table(
    "evomerge_winners",
    METADATA,
    Column("winner_id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("how", Text, nullable=False),
)
"""The trials that were chosen, one after the other; the last row is the winner."""

PRUNINGS = Table(
    "evomerge_prunings",
    METADATA,
    Column(
        "evaluation_id",
        ForeignKey("evomerge_evaluations.evaluation_id"),
        primary_key=True,
    ),
    Column("reason", Text, nullable=False),
    Column("blocks", Integer, nullable=False),
    Column("rival", Integer, nullable=False),
)
"""Why an evaluation was stopped before its last item."""

TASK_SCORES = Table(
    "evomerge_task_scores",
    METADATA,
    Column("task_score_id", Integer, primary_key=True),
    Column(
        "evaluation_id",
        ForeignKey("evomerge_evaluations.evaluation_id"),
        nullable=False,
        index=True,
    ),
    Column("task", String, nullable=False),
    Column("item_set_id", ForeignKey("evomerge_item_sets.item_set_id"), nullable=False),
    Column("truncated", Integer, nullable=False),
)

METRICS = Table(
    "evomerge_metrics",
    METADATA,
    Column("metric_id", Integer, primary_key=True),
    Column(
        "task_score_id",
        ForeignKey("evomerge_task_scores.task_score_id"),
        nullable=False,
        index=True,
    ),
    Column("metric", String, nullable=False),
    Column("estimate", Text),
    Column("per_item", LargeBinary),
)
"""Aggregate ([value, standard error] as JSON: SQLite has no NaN) and per-item values (see
`encoding.encode_items`), in the order of the item set."""

ITEM_SETS = Table(
    "evomerge_item_sets",
    METADATA,
    Column("item_set_id", Integer, primary_key=True),
    Column("ids", Text, nullable=False, unique=True),
)
"""Ids of items, stored once for all who were scored on them."""
