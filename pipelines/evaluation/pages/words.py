"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from pipelines.evaluation.report import METHODS

NOTHING = "–"
VERDICTS = ("passed", "inconclusive", "refused")


def percent(fraction: float | None) -> str:
    """`87.9 %`, from 0.879."""
    return NOTHING if fraction is None else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def count(number: float | None) -> str:
    """`76,808`."""
    return NOTHING if number is None else f"{number:,.0f}"


def magnitude(number: float) -> str:
    """`76.8 k`, `22.6 M`: three digits of it."""
    if number == 0:
        return "0"
    number = float(f"{number:.3g}")  # first, so that 999,999 is 1 M
    power = min(max(math.floor(math.log10(abs(number)) / 3 + 1e-12), 0), 4)
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T'][power]}".strip()


def size(number_bytes: float | None) -> str:
    """`310 kB`, of a thousand bytes each."""
    if number_bytes is None:
        return NOTHING
    shown = magnitude(number_bytes)
    return f"{shown} bytes" if number_bytes < 1000 else f"{shown}B"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `81 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def age(span: timedelta) -> str:
    """`today`, `1 day`, `12 days`, `7 weeks`, `14 months`."""
    days = span.days
    if days < 1:
        return "today"
    if days < 21:
        return f"{days} day{'s' * (days != 1)}"
    return f"{days // 7} weeks" if days < 120 else f"{days // 30} months"


def moment(at: str | None) -> str:
    """`2026-11-21 13:15 UTC`, from ISO 8601."""
    return NOTHING if not at else f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M} UTC"


def method(name: str) -> str:
    """A method as the tables call it."""
    return METHODS.get(name, name)


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop; a percentage is not broken over two lines."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}.".replace(" %", "\N{NO-BREAK SPACE}%")
