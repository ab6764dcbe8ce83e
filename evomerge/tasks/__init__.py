"""lm-eval's side: tasks, documents, splits, prompts, gold answers, metrics, aggregation."""

from evomerge.tasks.items import Items, load_items
from evomerge.tasks.metrics import task_metrics
from evomerge.tasks.prompt_files import Prompts, answers_digest, read_prompts, write_task
from evomerge.tasks.requested import PromptStyle, SplitPlan, TaskRequest
from evomerge.tasks.tasks import document_counts, expand, list_tasks

__all__ = [
    "Items",
    "PromptStyle",
    "Prompts",
    "SplitPlan",
    "TaskRequest",
    "answers_digest",
    "document_counts",
    "expand",
    "list_tasks",
    "load_items",
    "read_prompts",
    "task_metrics",
    "write_task",
]
