"""Robustness of a model over a data set, in a run folder: one unit of work per sample, then shares, curves and intervals."""
