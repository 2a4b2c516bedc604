"""Splits of the box of inputs, where few of them vary."""
