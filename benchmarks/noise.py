"""How long to measure, and whether the machine was too noisy to tell."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: With a greater spread than this the machine was too noisy.
NOISE: Final = 0.1


class Effort(NamedTuple):
    """How long to measure."""

    seconds: float  # for each server in each round
    rounds: int
    repeat_until: float = 0  # by time.monotonic(): later, nothing is measured again


def spread(values: Sequence[float]) -> float:
    """Return how far the middle half of some rounds is apart, as a part of their median."""
    if len(values) < 2:
        return 0.0
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / median if median else 0.0


class Spread(Protocol):
    """What was measured in some rounds."""

    def spread(self) -> float:
        """Return how far the rounds are apart."""


_Measured = TypeVar("_Measured", bound=Spread)


def steady(name: str, effort: Effort, measure: Callable[[], _Measured]) -> _Measured:
    """Measure; once more, if the machine was too noisy to tell. Return the steadier of the two."""
    measured = measure()
    if measured.spread() > NOISE and time.monotonic() < effort.repeat_until:
        print(f"{name}: the rounds differ by {measured.spread():.0%}: measuring again", flush=True)
        measured = min(measured, measure(), key=lambda each: each.spread())
    return measured
