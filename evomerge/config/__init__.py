"""The campaign file: validated, frozen settings, and nothing else. All settings types live here."""

from evomerge.config.campaign import Campaign
from evomerge.config.models import Expert, Models
from evomerge.config.objectives import Cost, Drawn, Items, Keep, Objective, Prompt
from evomerge.config.search import Search
from evomerge.config.settings import DType, Settings
from evomerge.config.space import Bounds, Range, Searched, Space
from evomerge.config.workers import Scorer, Workers

__all__ = [
    "Bounds",
    "Campaign",
    "Cost",
    "DType",
    "Drawn",
    "Expert",
    "Items",
    "Keep",
    "Models",
    "Objective",
    "Prompt",
    "Range",
    "Scorer",
    "Search",
    "Searched",
    "Settings",
    "Space",
    "Workers",
]
