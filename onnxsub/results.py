"""What every result has in common: it is a frozen dataclass, and its JSON form says which schema it follows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

__all__ = ["VERSION", "Result", "dumps", "jsonable"]

VERSION = "0.1.0"


class Result(Protocol):
    """A result that can be printed as one JSON document."""

    def to_json(self) -> dict[str, Any]:
        """Keys of the contract: `schema`, `version`, ... (plain Python values only)."""
        ...


def jsonable(value: Any) -> Any:
    """`value` in plain JSON types: arrays become lists, numpy scalars numbers, infinities and NaN null."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, dict | Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(result: Result) -> str:
    """The one JSON document of a result."""
    return json.dumps(jsonable(result.to_json()), indent=2, allow_nan=False)
