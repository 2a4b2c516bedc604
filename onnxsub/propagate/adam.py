"""Adam, for the slopes and multipliers of linear bounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Adam"]


class Adam:
    """Adam (Kingma and Ba 2015) with rates that fall by `decay`; torch's own takes a second to import.

    Args:
        rates: of every parameter, or of each of its elements.
        pace: factor of the rates per row of the parameters' first axis.
    """

    def __init__(
        self, parameters: Sequence[Tensor], rates: Sequence[float | Tensor], pace: Tensor | None = None, decay: float = 0.95
    ) -> None:
        self._parameters, self._rates, self._decay = parameters, rates, decay
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]
        self._count = 0
        self._pace = pace

    def taken(self, parameters: Sequence[Tensor], rows: Tensor) -> Adam:
        """What goes on for some of the rows of the parameters' first axis.

        Args:
            parameters: these rows of them.
        """
        rates = [r[rows] if isinstance(r, Tensor) else r for r in self._rates]
        other = Adam(parameters, rates, None if self._pace is None else self._pace[rows], self._decay)
        other._first, other._second = [m[rows] for m in self._first], [v[rows] for v in self._second]
        other._count = self._count
        return other

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One descent step."""
        self._count += 1
        with torch.no_grad():
            for p, g, m, v, rate in zip(self._parameters, gradients, self._first, self._second, self._rates, strict=True):
                if g is None or p.numel() == 0:
                    continue
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.99).addcmul_(g, g, value=0.01)
                size = (v / (1 - 0.99**self._count)).sqrt_().add_(1e-8)
                if self._pace is not None:
                    size = size / self._pace.reshape(-1, *[1] * (p.dim() - 1))
                if isinstance(rate, Tensor):
                    size, rate = size / rate, 1.0
                p.addcdiv_(m, size, value=-rate * self._decay ** (self._count - 1) / (1 - 0.9**self._count))
