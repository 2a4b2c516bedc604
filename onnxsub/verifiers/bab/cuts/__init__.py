"""Cuts over pairs of units: how they are found, and what their multipliers add to a backward pass."""
