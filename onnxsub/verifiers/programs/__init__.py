"""Programs: networks as rows and columns, linear programs solved again and again, bounds from their multipliers, and solvers."""
