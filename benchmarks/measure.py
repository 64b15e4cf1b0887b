"""Timing: alternate the contestants, take medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A rate, and its ratio to the baseline's rate where there is one."""

    name: str
    rate: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    note: str = ""

    def text(self) -> str:
        parts = [f"{self.rate:>12,.{0 if self.rate >= 100 else 2}f} {self.unit}"]
        if self.ratio is not None:
            parts.append(f"{self.ratio:.2f} x {self.baseline}")
        return "   ".join([*parts, *([self.note] if self.note else [])])


def seconds(
    functions: dict[str, Callable[[], object]],
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    of: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Median seconds of each function: one warm-up, then in turn, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(repeats + 1):
        for name, function in functions.items():
            started = clock()
            function()
            if round_number:
                times[name].append(clock() - started)
    return {name: of(values) for name, values in times.items()}
