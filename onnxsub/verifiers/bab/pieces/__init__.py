"""Sums of maxima of affine functions: few windows and Relus that only the row reads."""
