"""The campaign file: validated, frozen settings, and nothing else. All settings types live here."""

from evomerge.campaign.campaign import Campaign
from evomerge.campaign.models import Expert, Models
from evomerge.campaign.objectives import Cost, Drawn, Items, Keep, Objective, Prompt
from evomerge.campaign.search import SamplerName, Search
from evomerge.campaign.settings import DType, Settings
from evomerge.campaign.space import Bounds, Range, Searched, Space
from evomerge.campaign.workers import Scorer, Workers

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
    "SamplerName",
    "Scorer",
    "Search",
    "Searched",
    "Settings",
    "Space",
    "Workers",
]
