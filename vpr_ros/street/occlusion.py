"""What nearer walls hide of the things behind them, by columns of the image."""

from __future__ import annotations


class Skyline:
    """
    The line below which everything is hidden by nearer walls.

    Walls stand on the ground, so of a thing that stands farther away they hide all but what
    reaches above them.
    """

    _BIN = 4    # columns of the image that share one height

    def __init__(self, width: int, height: int) -> None:
        self._bins = -(-width // self._BIN)
        self._top = [float(height)] * self._bins

    def hides(self, left: float, right: float, top: float) -> bool:
        """Return whether nothing in columns `left` to `right` shows below row `top`."""
        first, last = int(left) // self._BIN, int(right - 1) // self._BIN
        return max(self._top[first:last + 1]) <= top

    def add(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Hide what is below the line from (x0, y0) to (x1, y1)."""
        if x1 < x0:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first = max(-int(-x0 // self._BIN), 0)
        last = min(int(x1 // self._BIN), self._bins)
        if last <= first:
            return
        slope = (y1 - y0) / (x1 - x0)
        tops = self._top
        left = y0 + slope * (first * self._BIN - x0)
        for index in range(first, last):
            right = left + slope * self._BIN
            # A row to spare, since outlines are rounded.
            line = (left if left > right else right) + 1.5
            if line < tops[index]:
                tops[index] = line
            left = right
