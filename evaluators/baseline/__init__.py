"""Baselines: what the responses of a model that is well look like."""
