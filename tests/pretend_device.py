"""A second device that is not there: on a machine with only a processor, tensors that torch would keep on a GPU are told apart.

Inside `with pretend_device():` a tensor made with `device="cuda"` lies in ordinary memory but bears a mark, and calls of torch are
refused where a GPU would refuse them:

- an operation on tensors of both devices raises, except for a processor's scalar of no axes where torch takes one;
- a processor's index into a marked tensor is fine, a marked index into a processor's tensor is not;
- `numpy()` and `np.asarray` of a marked tensor raise; `.cpu()` and `.to("cpu")` give a copy without the mark;
- what comes of marked tensors is marked, views and gradients too.

Stricter than torch: a marked tensor takes no values from the processor by assignment (`a[i] = b`), only by `copy_`. Not seen: what
happens inside one call of torch, and everything that a GPU computes differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["PretendDevice", "is_marked", "pretend_device"]

CUDA = torch.device("cuda", 0)
_MARK = "_pretend_cuda"
_GET = {
    torch.Tensor.device.__get__: lambda marked: CUDA if marked else torch.device("cpu"),
    torch.Tensor.is_cuda.__get__: lambda marked: marked,
    torch.Tensor.is_cpu.__get__: lambda marked: not marked,
}
_TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
_AS_GIVEN = {torch.tensor, torch.as_tensor, torch.asarray}
_NO_SCALARS = {
    "cat", "concat", "stack", "gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "index_select", "index_add",
    "index_add_", "index_put_", "take", "bucketize", "searchsorted", "matmul", "bmm", "conv1d", "conv2d", "conv3d", "linear",
}  # fmt: skip
"""Functions that do not take a scalar of the processor among tensors of a GPU."""


def is_marked(t: Tensor) -> bool:
    """Whether a tensor lies on the device that is not there."""
    return bool(t.__dict__.get(_MARK, False))


def _mark(found: Any) -> Any:
    for t in _tensors(found):
        t.__dict__[_MARK] = True
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


class PretendDevice(TorchFunctionMode):
    """See the module.

    Attributes:
        calls: operations on marked tensors so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _GET:
            return _GET[func](is_marked(args[0]))
        name = getattr(func, "__name__", "")
        if func in _TO_NUMPY and is_marked(args[0]):
            raise TypeError("can't convert a cuda:0 tensor to numpy. Use Tensor.cpu() to copy it to host memory first.")
        if func in (torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.to):
            return self._moved(func, args, kwargs)
        wanted = kwargs.pop("device", None)
        if func in _AS_GIVEN and isinstance(args[0], Tensor) and wanted is not None:
            return self._moved(torch.Tensor.to, (args[0], wanted), {k: v for k, v in kwargs.items() if k == "dtype"})
        if func is torch.Tensor.copy_:
            return func(*args, **kwargs)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            self._check_index(*args)
        elif func not in _AS_GIVEN:
            self._check(name, [*_tensors(args), *_tensors(kwargs)])
        marked = any(is_marked(t) for t in (*_tensors(args), *_tensors(kwargs)))
        if func in _AS_GIVEN and not isinstance(args[0], Tensor):
            marked = False  # a list of scalars is copied to where the result is wanted
        self.calls += marked
        result = func(*args, **kwargs)
        if wanted is not None:
            marked = torch.device(wanted).type == "cuda"
        return _mark(result) if marked else result

    def _moved(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """`cpu`, `cuda` and `to`: a copy where the device changes."""
        t: Tensor = args[0]
        goes = is_marked(t)
        rest = []
        if func is not torch.Tensor.to:
            goes, kwargs, func = func is torch.Tensor.cuda, {}, torch.Tensor.to
        else:
            device = kwargs.pop("device", None)
            other = kwargs.pop("other", None)
            for a in args[1:]:
                if isinstance(a, Tensor):
                    other = a
                elif isinstance(a, str | torch.device):
                    device = a
                elif a is not None:
                    rest.append(a)
            if other is not None:
                goes = is_marked(other)
                rest.insert(0, other.dtype)
            if device is not None:
                goes = torch.device(device).type == "cuda"
        same = goes == is_marked(t)
        found = func(t, *rest, **kwargs) if rest or kwargs else t
        if not same and found is t:
            found = t.clone()
        self.calls += goes
        return _mark(found) if goes else found

    def _check(self, name: str, tensors: list[Tensor]) -> None:
        marked = [t for t in tensors if is_marked(t)]
        others = [t for t in tensors if not is_marked(t)]
        scalars = name not in _NO_SCALARS and all(t.dim() == 0 for t in others)
        if marked and others and not scalars:
            shapes = f"{[tuple(t.shape) for t in marked]} on cuda:0 and {[tuple(t.shape) for t in others]} on cpu"
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices: {name} of {shapes}")

    def _check_index(self, t: Tensor, index: Any, value: Any = None) -> None:
        for i in _tensors(index):
            number = i.dim() == 0 and i.dtype not in (torch.bool, torch.uint8)
            if is_marked(i) and not is_marked(t) and not number:
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if isinstance(value, Tensor) and is_marked(value) != is_marked(t) and (is_marked(value) or value.dim()):
            raise RuntimeError("Expected all tensors to be on the same device: the values that are assigned are on another one")


def _generator(real: Callable[..., torch.Generator]) -> Callable[..., torch.Generator]:
    return lambda device=None: real()


@contextmanager
def pretend_device(free: int = 2**34) -> Iterator[PretendDevice]:
    """One CUDA device, as far as Python sees.

    Args:
        free: its free memory in bytes.
    """
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "device_count", return_value=1),
        mock.patch.object(torch.cuda, "mem_get_info", return_value=(free, free)),
        mock.patch.object(torch, "Generator", _generator(torch.Generator)),
        PretendDevice() as mode,
    ):
        yield mode
