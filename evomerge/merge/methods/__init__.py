"""Merge methods: pure tensor maths."""

from evomerge.merge.methods.method import Group, Method, NumberSlopes, ParameterSpec
from evomerge.merge.methods.registry import METHODS, method

__all__ = ["METHODS", "Group", "Method", "NumberSlopes", "ParameterSpec", "method"]
