"""Demand over time: the number of threads that a scheduler could use, as a function of the seconds."""

from __future__ import annotations

from collections.abc import Callable

Demand = Callable[[float], int]


def saw_tooth(period: float, peak: int) -> Demand:
    """Rise to `peak` threads and fall to zero, repeatedly."""
    return lambda t: round(peak * (t % period) / period)


def square(on: float, off: float, peak: int) -> Demand:
    """Need `peak` threads for `on` seconds, none for `off`."""
    return lambda t: peak if t % (on + off) < on else 0


def ramp(seconds: float, peak: int) -> Demand:
    """Rise linearly to `peak` threads, and stay."""
    return lambda t: round(peak * min(1.0, t / seconds))


def burst(start: float, end: float, peak: int) -> Demand:
    """Need `peak` threads once."""
    return lambda t: peak if start <= t < end else 0


LOADS = {
    **{f"saw-tooth {period} s": saw_tooth(period, 80) for period in (20, 60, 85, 160, 400)},
    "waves 20 s on 40 s off": square(20, 40, 80),
    "waves 60 s on 80 s off": square(60, 80, 80),
    "waves 200 s on 700 s off": square(200, 700, 80),
    "ramp over 900 s": ramp(900, 160),
    "one burst of 300 s": burst(60, 360, 160),
    "blip 4 s every 300 s": square(4, 296, 160),
    "steady": lambda t: 80,
}
