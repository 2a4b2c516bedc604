"""Bound propagation: intervals forward, linear functions backward, over any network of the operator table."""

from onnxsub.propagate.backward import Coefficients, LinearBound, pull_back
from onnxsub.propagate.bounds import METHODS, Bounds, compute_bounds, linear_range, margin_bounds

__all__ = ["METHODS", "Bounds", "Coefficients", "LinearBound", "compute_bounds", "linear_range", "margin_bounds", "pull_back"]
