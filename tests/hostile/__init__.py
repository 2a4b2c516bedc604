"""Files and folders that somebody else made: nothing in them is executed, and reading them has a budget."""
