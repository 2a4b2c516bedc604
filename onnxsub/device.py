"""Where torch computes: which device may be asked for, what room it has, and float32 as IEEE 754 has it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from onnxsub.errors import InputError

if TYPE_CHECKING:
    import torch
else:
    from onnxsub.lazy import torch

__all__ = ["check_device", "free_memory", "ieee_float32", "torch_settings"]


def check_device(device: str, what: str) -> None:
    """Raises InputError unless `device` is `cpu`, or `cuda` or `cuda:N` and torch sees it.

    Args:
        what: who wants it, for the message.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if found is None:
        raise InputError(f"{what}: device {device!r} is unknown; choose cpu or cuda")
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise InputError(f"{what}: torch sees no CUDA device; use --device cpu or install a CUDA build of torch")
    if found[1] is not None and int(found[1]) >= torch.cuda.device_count():
        raise InputError(f"{what}: torch sees no device {device}; it numbers {torch.cuda.device_count()} CUDA devices from 0")


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a GPU, infinite for the processor."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else math.inf


@contextmanager
def ieee_float32(device: torch.device) -> Iterator[None]:
    """On a GPU, products and convolutions of float32 with all 24 bits: without this, cuDNN rounds their factors to 11 (TF32)."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # newer versions of torch have a setting per kind of operator besides, which the older ones below set too
    kinds: list[Any] = [matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)]
    kinds = [k for k in kinds if hasattr(k, "fp32_precision")]
    before = [k.fp32_precision for k in kinds]
    old_matmul, old_cudnn = _readable(torch.get_float32_matmul_precision), _readable(lambda: cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        if old_cudnn is not None:
            cudnn.allow_tf32 = old_cudnn
        if old_matmul not in (None, "highest"):
            torch.set_float32_matmul_precision(old_matmul)
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def _readable(get: Callable[[], Any]) -> Any:
    """A setting; None where both ways of setting it were used and contradict each other."""
    try:
        return get()
    except RuntimeError:
        return None


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """torch with so many threads and full float32 convolutions, and its own settings again afterwards."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        # TensorFloat-32 has an error of 1e-3: no way to stay on a boundary
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
