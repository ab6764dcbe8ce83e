"""Pages: one HTML file each, with all that it needs inside, to be opened without a server or a network."""

from evomerge.report.page.parts import (
    Callout,
    Code,
    Fold,
    ItemTable,
    Listing,
    Part,
    Plot,
    Section,
)
from evomerge.report.page.writing import write_page

__all__ = [
    "Callout",
    "Code",
    "Fold",
    "ItemTable",
    "Listing",
    "Part",
    "Plot",
    "Section",
    "write_page",
]
