"""Which of two ways regions are bounded: every unit by a backward pass, or by zonotopes and the rows alone by one."""

from __future__ import annotations

__all__ = ["Ways"]

_COST = 4.0  # of a backward pass in regions by zonotopes: counted, not measured, so that a search does not depend on the machine
_BELOW = 10.0  # regions by zonotopes that close what a backward pass alone closes at once
_MEMORY = 0.9  # of what a step has shown, after the next one
_OTHER = 8  # one of so many steps goes the other way, to see whether that pays by now


class Ways:
    """The two ways, and the share of regions that each one closes lately.

    Where zonotopes leave a region open that a backward pass would close, some regions below it do so. So they pay as long as the
    share of those costs less than a pass: `(p_backward - p_zonotopes) * below < cost - 1`.
    """

    def __init__(self) -> None:
        self._closed, self._seen, self._steps = [0.0, 0.0], [0.0, 0.0], 0

    def next(self) -> int:
        """0: backward; 1: by zonotopes."""
        self._steps += 1
        way = self._better()
        return 1 - way if self._steps % _OTHER == 0 else way

    def told(self, way: int, closed: int, seen: int) -> None:
        """What a step has shown: so many of the regions that it has seen are closed."""
        self._closed[way] = _MEMORY * self._closed[way] + closed
        self._seen[way] = _MEMORY * self._seen[way] + seen

    def _better(self) -> int:
        backward, zonotopes = (c / s if s > 0 else 0.0 for c, s in zip(self._closed, self._seen, strict=True))
        return int((backward - zonotopes) * _BELOW < _COST - 1)
