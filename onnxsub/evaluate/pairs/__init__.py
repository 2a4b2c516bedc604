"""Adversarial examples with the smallest margin, in a run folder: one unit of work per model, sample and target class."""
