"""Inputs made by a seeded generator: whatever they hold, the answer is a result or one line."""
