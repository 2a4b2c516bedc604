"""Verifiers: each answers about one anchor with a bracket or a decision, and says `proved` only for a proof."""
