"""Samplers compared: quality by item evaluations and by time."""
