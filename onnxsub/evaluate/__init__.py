"""The experiment over a data set: units of work, a ledger that survives a kill, engines, results."""
