"""The command line: one thin file per command. What is computed stands in the library; here it is only asked for and shown."""
