"""The options of one question: `--target`, and those that take one number per feature, `--domain`, `--eps` and `--scale`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.option_types import RadiusType
from onnxsub.errors import InputError
from onnxsub.limits import check_regular

if TYPE_CHECKING:
    from onnxsub.features import Weights
    from onnxsub.ops.base import Array

__all__ = ["ball_of", "domain_of", "radius_option", "radius_text", "read_features", "scale_option", "target_option"]


scale_option = click.option(
    "--scale", metavar="FILE.npy", help="Weights, one per feature: radii count units of them. 0: the feature is fixed."
)
"""`--scale FILE.npy`: every radius and distance is `min t such that |x_i - x0_i| <= t w_i`."""


target_option = click.option(
    "--target", type=int, metavar="K", help="The one class that counts beside it.  [default: every other class]"
)
"""`--target K`: only the margin `f_K - f_y` counts."""


def radius_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--eps E`, or one radius per feature."""
    help_ = "Radius of the ball, in un-normalised input units, or a .npy file with one per feature."
    return click.option("--eps", type=RadiusType(), required=required, metavar="E|FILE", help=help_)


def radius_text(eps: float | str | None) -> str:
    """`--eps` in one line of a table."""
    return f"eps {eps:g}" if isinstance(eps, float) else f"eps of every feature from {eps}"


def read_features(path: str, option: str) -> Array:
    """The numbers in a `.npy` file, float64.

    Raises:
        InputError: no such file, not readable, or no numbers in it.
    """
    import numpy as np

    if not path.lower().endswith(".npy"):
        raise InputError(f"{option} {path!r} has the ending {Path(path).suffix!r}; give a .npy file with one number per feature")
    check_regular(Path(path), f"{option} {path!r}")
    try:
        with Path(path).open("rb") as file:
            found = np.load(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{option} {path!r} cannot be read: {error.strerror or 'no array'}; give a .npy file") from error
    except Exception as error:  # numpy raises ValueError, EOFError and more on a damaged file
        raise InputError(f"{option} {path!r} is damaged, or no .npy file of numbers; write it with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise InputError(f"{option} {path!r} holds no numbers; give one float per feature")
    return found.astype(np.float64)


def domain_of(domain: tuple[float, float] | str) -> tuple[Any, Any]:
    """Lower and upper end: two numbers, or two arrays out of a file of shape `(2, ...)`.

    Raises:
        InputError: the file is not of that shape.
    """
    if not isinstance(domain, str):
        return domain
    found = read_features(domain, "--domain")
    if found.ndim < 2 or len(found) != 2:
        raise InputError(
            f"--domain {domain!r} has shape {list(found.shape)}; give (2, ...): all lower ends, then all upper ends, each of the "
            "input's shape or one per channel"
        )
    return found[0], found[1]


def ball_of(eps: float | str | None, scale: str | None) -> tuple[float | None, Weights | None]:
    """The radius and the scale that it counts units of: a radius per feature is the radius 1 in units of itself."""
    from onnxsub.features import Weights

    if isinstance(eps, str):
        if scale is not None:
            raise click.UsageError("--eps FILE says the radius of every feature; leave out --scale, or give --eps a number")
        return 1.0, Weights(read_features(eps, "--eps"), "--eps")
    return eps, None if scale is None else Weights(read_features(scale, "--scale"))
