"""onnxsub: local substitutes of ONNX classifiers, and the exact distance to their decision boundary.

    import onnxsub

    query = onnxsub.make_query("model.onnx", x0)
    print(onnxsub.distance(query).upper)

Every name is imported at its first use, so that `import onnxsub` costs nothing and torch is loaded only by what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxsub.anchors import read_anchor
    from onnxsub.errors import (
        InputError,
        LicenceError,
        MissingDependencyError,
        ModelError,
        OnnxsubError,
        OutputError,
        SolverError,
        UnsupportedOperatorError,
    )
    from onnxsub.metrics.local import LocalOptions, LocalVerdict, decide_local, make_property
    from onnxsub.metrics.margin import MarginOptions, smallest_margin
    from onnxsub.metrics.margin_result import MarginResult
    from onnxsub.model import Model, save_model
    from onnxsub.model import load_model as load
    from onnxsub.model_info import InfoResult, info
    from onnxsub.passes.annotate import annotate
    from onnxsub.passes.attack import AttackOptions, AttackResult, attack
    from onnxsub.passes.bounds import BoundsOptions, BoundsResult, bounds
    from onnxsub.passes.compare import CompareOptions, CompareResult, compare
    from onnxsub.pruning.prune import PruneOptions, PruneResult, prune
    from onnxsub.query import Query, make_query
    from onnxsub.region import InputSpace
    from onnxsub.results import dumps
    from onnxsub.verifiers.distance import DistanceOptions, DistanceResult, distance
    from onnxsub.verifiers.verify import VerifyOptions, VerifyResult, verify

__version__ = "0.1.0"

_HOME = {
    "read_anchor": "onnxsub.anchors",
    "InputError": "onnxsub.errors",
    "LicenceError": "onnxsub.errors",
    "MissingDependencyError": "onnxsub.errors",
    "ModelError": "onnxsub.errors",
    "OnnxsubError": "onnxsub.errors",
    "OutputError": "onnxsub.errors",
    "SolverError": "onnxsub.errors",
    "UnsupportedOperatorError": "onnxsub.errors",
    "InfoResult": "onnxsub.model_info",
    "info": "onnxsub.model_info",
    "LocalOptions": "onnxsub.metrics.local",
    "LocalVerdict": "onnxsub.metrics.local",
    "decide_local": "onnxsub.metrics.local",
    "make_property": "onnxsub.metrics.local",
    "MarginOptions": "onnxsub.metrics.margin",
    "smallest_margin": "onnxsub.metrics.margin",
    "MarginResult": "onnxsub.metrics.margin_result",
    "Model": "onnxsub.model",
    "load": "onnxsub.model:load_model",
    "save_model": "onnxsub.model",
    "annotate": "onnxsub.passes.annotate",
    "AttackOptions": "onnxsub.passes.attack",
    "AttackResult": "onnxsub.passes.attack",
    "attack": "onnxsub.passes.attack",
    "BoundsOptions": "onnxsub.passes.bounds",
    "BoundsResult": "onnxsub.passes.bounds",
    "bounds": "onnxsub.passes.bounds",
    "CompareOptions": "onnxsub.passes.compare",
    "CompareResult": "onnxsub.passes.compare",
    "compare": "onnxsub.passes.compare",
    "PruneOptions": "onnxsub.pruning.prune",
    "PruneResult": "onnxsub.pruning.prune",
    "prune": "onnxsub.pruning.prune",
    "Query": "onnxsub.query",
    "make_query": "onnxsub.query",
    "InputSpace": "onnxsub.region",
    "dumps": "onnxsub.results",
    "DistanceOptions": "onnxsub.verifiers.distance",
    "DistanceResult": "onnxsub.verifiers.distance",
    "distance": "onnxsub.verifiers.distance",
    "VerifyOptions": "onnxsub.verifiers.verify",
    "VerifyResult": "onnxsub.verifiers.verify",
    "verify": "onnxsub.verifiers.verify",
}

__all__ = [
    "AttackOptions",
    "AttackResult",
    "BoundsOptions",
    "BoundsResult",
    "CompareOptions",
    "CompareResult",
    "DistanceOptions",
    "DistanceResult",
    "InfoResult",
    "InputError",
    "InputSpace",
    "LicenceError",
    "LocalOptions",
    "LocalVerdict",
    "MarginOptions",
    "MarginResult",
    "MissingDependencyError",
    "Model",
    "ModelError",
    "OnnxsubError",
    "OutputError",
    "PruneOptions",
    "PruneResult",
    "Query",
    "SolverError",
    "UnsupportedOperatorError",
    "VerifyOptions",
    "VerifyResult",
    "__version__",
    "annotate",
    "attack",
    "bounds",
    "compare",
    "decide_local",
    "distance",
    "dumps",
    "info",
    "load",
    "make_property",
    "make_query",
    "prune",
    "read_anchor",
    "save_model",
    "smallest_margin",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxsub' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
