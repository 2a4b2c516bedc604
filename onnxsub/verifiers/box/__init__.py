"""A network over one box: bounds, what they exclude, and what the points look like at which one clause holds."""
