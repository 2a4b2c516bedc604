"""Search on folded networks of Relus as a few matrices: thousands of nodes a second, each with intervals of its own."""
