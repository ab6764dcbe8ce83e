"""Candidates that are no averaged weights, as modules: ensembles, stacks, mixtures of experts."""
