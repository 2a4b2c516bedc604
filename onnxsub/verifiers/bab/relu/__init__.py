"""Networks of Relus as matrices: bounds of many nodes in a few large products, gradients in closed form."""
