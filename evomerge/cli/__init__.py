"""The command line: thin commands, lazy imports, one-line errors."""

from evomerge.cli.app import main, run_command

__all__ = ["main", "run_command"]
