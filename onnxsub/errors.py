"""Every error that onnxsub raises on purpose. Each class is also a builtin, so that `except ValueError` works too.

    OnnxsubError
    ├── InputError (ValueError)            an anchor, an option or a file that cannot be used as it is
    │   ├── OptionError                    an option that cannot be used, whatever the files hold
    │   └── ModelError                     the .onnx file itself
    │       └── UnsupportedOperatorError (NotImplementedError)
    ├── MissingDependencyError (ImportError)  a solver, a runtime or a plotting library that is not installed
    ├── OutOfTimeError (TimeoutError)      a time limit ended what is worth nothing before it is complete
    ├── SolverError (RuntimeError)         a solver failed; never to be read as "unknown"
    │   └── LicenceError                   the solver is installed but its licence does not admit the problem
    ├── ContradictionError (AssertionError)  two results that cannot both be true: a fault of this program
    └── OutputError (OSError)              a result could not be written

The message is one line: what is wrong, where, and what to do. The command line prints it and exits
with 4, after an OptionError with 2.
"""

from __future__ import annotations

__all__ = [
    "ContradictionError",
    "DivergedError",
    "InputError",
    "LicenceError",
    "MissingDependencyError",
    "ModelError",
    "OnnxsubError",
    "OnnxsubWarning",
    "OptionError",
    "OutOfTimeError",
    "OutputError",
    "SolverError",
    "UnsupportedOperatorError",
]


class OnnxsubError(Exception):
    """Base of all errors of this package."""


class InputError(OnnxsubError, ValueError):
    """Something the user gave (anchor, option, file) cannot be used."""


class OptionError(InputError):
    """An option is out of its range, or contradicts another one, whatever the files hold: a mistake of usage."""


class DivergedError(InputError):
    """A training's loss or weights are no longer finite numbers."""


class ModelError(InputError):
    """The model file is missing, corrupt or not a classifier that onnxsub reads."""


class UnsupportedOperatorError(ModelError, NotImplementedError):
    """An operator, or one of its meanings (bounds, MILP, ...), is not in the operator table."""


class MissingDependencyError(OnnxsubError, ImportError):
    """An optional package is needed for what was asked and is not installed."""


class OutOfTimeError(OnnxsubError, TimeoutError):
    """A time limit ended a call whose answer is worth nothing before it is complete (bounds, a substitute)."""


class SolverError(OnnxsubError, RuntimeError):
    """A solver reported an error. An error is never turned into an answer."""


class LicenceError(SolverError):
    """A solver refuses for its licence: absent, expired or limited in size."""


class ContradictionError(OnnxsubError, AssertionError):
    """What was proved and what was replayed cannot both be true. It is reported, never smoothed over."""


class OutputError(OnnxsubError, OSError):
    """A file could not be written."""


class OnnxsubWarning(UserWarning):
    """Something that the user gave is used, and is not all that it seems; the command line says it on standard error."""
