"""Branch and bound on the distance itself: nodes are sign patterns of units, bounded by linear bounds and no solver."""
