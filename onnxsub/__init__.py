"""onnxsub: local substitutes of ONNX classifiers, and the exact distance to their decision boundary.

    import onnxsub

    print(onnxsub.distance("model.onnx", x, timeout=30))
    print(onnxsub.distance("model.onnx", x, method="lin", gamma=0.99))

Every name is imported at its first use, so that `import onnxsub` costs nothing and torch is loaded only by what needs it.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from onnxsub.api.callable_module import CALLS, Package

if TYPE_CHECKING:
    from onnxsub.anchors import read_anchor
    from onnxsub.api.calls import attack, distance, prune, verify
    from onnxsub.api.gated import gate
    from onnxsub.api.one import annotate, bounds, compare, info, load, make_query
    from onnxsub.api.runs import evaluate, report, robustness
    from onnxsub.api.table import Table
    from onnxsub.errors import (
        ContradictionError,
        InputError,
        LicenceError,
        MissingDependencyError,
        ModelError,
        OnnxsubError,
        OutOfTimeError,
        OutputError,
        SolverError,
        UnsupportedOperatorError,
    )
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.robustness.result import RobustnessResult
    from onnxsub.evaluate.robustness.settings import RobustnessSettings
    from onnxsub.evaluate.run import EvaluateResult
    from onnxsub.evaluate.settings import Settings
    from onnxsub.gate.options import GateOptions
    from onnxsub.gate.result import GateResult
    from onnxsub.metrics.local import LocalOptions, LocalVerdict, decide_local, make_property
    from onnxsub.metrics.margin import MarginOptions, smallest_margin
    from onnxsub.metrics.margin_result import MarginResult
    from onnxsub.model import Model, save_model
    from onnxsub.model_info import InfoResult
    from onnxsub.passes.attack import AttackOptions, AttackResult
    from onnxsub.passes.bounds import BoundsOptions, BoundsResult
    from onnxsub.passes.compare import CompareOptions, CompareResult
    from onnxsub.passes.select import SelectOptions
    from onnxsub.pruning.prune import PruneOptions, PruneResult
    from onnxsub.query import Query
    from onnxsub.reading import Reading
    from onnxsub.region import InputSpace
    from onnxsub.report.report import ReportOptions, ReportResult
    from onnxsub.results import dumps
    from onnxsub.verifiers.ascend import AttackPlan
    from onnxsub.verifiers.distance import DistanceOptions, DistanceResult
    from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
    from onnxsub.verifiers.verify import VerifyOptions, VerifyResult
    from onnxsub.verifiers.witness import Witness

__version__ = "0.1.0"

_HOME = {
    "read_anchor": "onnxsub.anchors",
    "annotate": "onnxsub.api.one",
    "attack": "onnxsub.api.calls",
    "bounds": "onnxsub.api.one",
    "compare": "onnxsub.api.one",
    "distance": "onnxsub.api.calls",
    "info": "onnxsub.api.one",
    "load": "onnxsub.api.one",
    "make_query": "onnxsub.api.one",
    "prune": "onnxsub.api.calls",
    "verify": "onnxsub.api.calls",
    "robustness": "onnxsub.api.runs",
    "Table": "onnxsub.api.table",
    "ContradictionError": "onnxsub.errors",
    "InputError": "onnxsub.errors",
    "LicenceError": "onnxsub.errors",
    "MissingDependencyError": "onnxsub.errors",
    "ModelError": "onnxsub.errors",
    "OnnxsubError": "onnxsub.errors",
    "OutOfTimeError": "onnxsub.errors",
    "OutputError": "onnxsub.errors",
    "SolverError": "onnxsub.errors",
    "UnsupportedOperatorError": "onnxsub.errors",
    "RunOptions": "onnxsub.evaluate.drive",
    "RobustnessResult": "onnxsub.evaluate.robustness.result",
    "RobustnessSettings": "onnxsub.evaluate.robustness.settings",
    "EvaluateResult": "onnxsub.evaluate.run",
    "Settings": "onnxsub.evaluate.settings",
    "GateOptions": "onnxsub.gate.options",
    "GateResult": "onnxsub.gate.result",
    "LocalOptions": "onnxsub.metrics.local",
    "LocalVerdict": "onnxsub.metrics.local",
    "decide_local": "onnxsub.metrics.local",
    "make_property": "onnxsub.metrics.local",
    "MarginOptions": "onnxsub.metrics.margin",
    "smallest_margin": "onnxsub.metrics.margin",
    "MarginResult": "onnxsub.metrics.margin_result",
    "Model": "onnxsub.model",
    "save_model": "onnxsub.model",
    "InfoResult": "onnxsub.model_info",
    "AttackOptions": "onnxsub.passes.attack",
    "AttackResult": "onnxsub.passes.attack",
    "BoundsOptions": "onnxsub.passes.bounds",
    "BoundsResult": "onnxsub.passes.bounds",
    "CompareOptions": "onnxsub.passes.compare",
    "CompareResult": "onnxsub.passes.compare",
    "SelectOptions": "onnxsub.passes.select",
    "PruneOptions": "onnxsub.pruning.prune",
    "PruneResult": "onnxsub.pruning.prune",
    "Query": "onnxsub.query",
    "Reading": "onnxsub.reading",
    "InputSpace": "onnxsub.region",
    "ReportOptions": "onnxsub.report.report",
    "ReportResult": "onnxsub.report.report",
    "dumps": "onnxsub.results",
    "AttackPlan": "onnxsub.verifiers.ascend",
    "DistanceOptions": "onnxsub.verifiers.distance",
    "DistanceResult": "onnxsub.verifiers.distance",
    "BabOptions": "onnxsub.verifiers.options",
    "Limits": "onnxsub.verifiers.options",
    "MilpOptions": "onnxsub.verifiers.options",
    "VerifyOptions": "onnxsub.verifiers.verify",
    "VerifyResult": "onnxsub.verifiers.verify",
    "Witness": "onnxsub.verifiers.witness",
}

__all__ = [
    "AttackOptions",
    "AttackPlan",
    "AttackResult",
    "BabOptions",
    "BoundsOptions",
    "BoundsResult",
    "CompareOptions",
    "CompareResult",
    "ContradictionError",
    "DistanceOptions",
    "DistanceResult",
    "EvaluateResult",
    "GateOptions",
    "GateResult",
    "InfoResult",
    "InputError",
    "InputSpace",
    "LicenceError",
    "Limits",
    "LocalOptions",
    "LocalVerdict",
    "MarginOptions",
    "MarginResult",
    "MilpOptions",
    "MissingDependencyError",
    "Model",
    "ModelError",
    "OnnxsubError",
    "OutOfTimeError",
    "OutputError",
    "PruneOptions",
    "PruneResult",
    "Query",
    "Reading",
    "ReportOptions",
    "ReportResult",
    "RobustnessResult",
    "RobustnessSettings",
    "RunOptions",
    "SelectOptions",
    "Settings",
    "SolverError",
    "Table",
    "UnsupportedOperatorError",
    "VerifyOptions",
    "VerifyResult",
    "Witness",
    "__version__",
    "annotate",
    "attack",
    "bounds",
    "compare",
    "decide_local",
    "distance",
    "dumps",
    "evaluate",
    "gate",
    "info",
    "load",
    "make_property",
    "make_query",
    "prune",
    "read_anchor",
    "report",
    "robustness",
    "save_model",
    "smallest_margin",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in CALLS:
        return importlib.import_module(f"onnxsub.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxsub' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


sys.modules[__name__].__class__ = Package
