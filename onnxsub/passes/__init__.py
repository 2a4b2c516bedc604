"""Passes: each takes a network or a query and options, returns something new and a report, and never edits its input."""
