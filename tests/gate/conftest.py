"""Fixtures of other folders that the gate's tests use."""

from __future__ import annotations

from tests.cli.conftest import onnxsub

__all__ = ["onnxsub"]
