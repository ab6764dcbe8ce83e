"""The campaign file: validated, frozen settings, and nothing else. All settings types live here."""

from evomerge.config.campaign import Campaign
from evomerge.config.loggers import LoggerSettings
from evomerge.config.models import Expert, Models
from evomerge.config.objectives import (
    TEACHER_MATCH,
    CostName,
    CostSettings,
    DrawnFrom,
    ItemCounts,
    Keep,
    KeepCost,
    Objective,
    PromptSettings,
)
from evomerge.config.search import Search
from evomerge.config.settings import ITEMSIZES, DType, Settings
from evomerge.config.space import Bounds, Combiner, Over, Range, Searched, SpaceSettings
from evomerge.config.workers import ScorerSettings, Workers

__all__ = [
    "ITEMSIZES",
    "TEACHER_MATCH",
    "Bounds",
    "Campaign",
    "Combiner",
    "CostName",
    "CostSettings",
    "DType",
    "DrawnFrom",
    "Expert",
    "ItemCounts",
    "Keep",
    "KeepCost",
    "LoggerSettings",
    "Models",
    "Objective",
    "Over",
    "PromptSettings",
    "Range",
    "ScorerSettings",
    "Search",
    "Searched",
    "Settings",
    "SpaceSettings",
    "Workers",
]
