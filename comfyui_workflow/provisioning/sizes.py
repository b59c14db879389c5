"""Sizes and durations in words."""

import math


def size_text(count: float) -> str:
    """Formats bytes: `512 KB`, `6.94 GB`."""
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1)):
        if count >= factor:
            return f"{count / factor:.{digits}f} {unit}"
    return f"{math.ceil(count / 1e3)} KB"


def duration_text(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 120 else f"{math.ceil(whole / 60)} min"
