"""Exact distances and decisions: our engines, and other tools by bisection, on the same anchors in one run."""
