"""Fewer units: how important each one is, which of them go, and the smaller file."""
