"""Merge methods: pure tensor maths."""

from evomerge.merge.methods.method import Group, Method, NumberGradients, ParameterSpec
from evomerge.merge.methods.registry import METHODS, method

__all__ = ["METHODS", "Group", "Method", "NumberGradients", "ParameterSpec", "method"]
