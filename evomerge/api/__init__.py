"""The Python API: one function for each command, which takes and returns what Python has."""

from evomerge.api.activations import statistics
from evomerge.api.campaigns import check, compare, merge, open, report, resume, score, search
from evomerge.api.ensembles import adapters, add, load, remove
from evomerge.api.explanations import explain
from evomerge.api.hub import push
from evomerge.api.object_store import export

__all__ = [
    "adapters",
    "add",
    "check",
    "compare",
    "explain",
    "export",
    "load",
    "merge",
    "open",
    "push",
    "remove",
    "report",
    "resume",
    "score",
    "search",
    "statistics",
]
