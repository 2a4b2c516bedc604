"""What a run says, for people: table, figures, one page; and the two-dimensional picture of the method."""
