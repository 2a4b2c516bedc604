"""Verifiers of other people, each in a process of its own. What they find is replayed; what they prove is their claim."""
