"""Robustness of many models, metrics, properties and radii in one run folder."""
