"""Linear relaxations of small targets: depth-first search on them, hull cuts, and looking ahead of a branching."""
