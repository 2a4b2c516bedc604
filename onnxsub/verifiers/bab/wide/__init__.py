"""Search on networks of few units and many inputs: bounds by an augmented Lagrangian (`bound.py`)."""
