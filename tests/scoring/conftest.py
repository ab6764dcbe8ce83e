"""Fixtures of the rooms that score."""

from tests.scoring_family import llama, subject

__all__ = ["llama", "subject"]
