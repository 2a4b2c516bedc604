"""Robustness of a whole model: properties at one anchor, intervals with a guarantee, distances and margins over a data set."""
