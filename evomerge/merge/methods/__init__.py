"""Merge methods: pure tensor maths."""

from evomerge.merge.methods.method import Group, Method, ParameterSpec
from evomerge.merge.methods.registry import METHODS, method

__all__ = ["METHODS", "Group", "Method", "ParameterSpec", "method"]
