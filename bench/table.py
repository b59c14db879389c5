"""A row of the table: the measured work, the figure of this project, the reference, and the goal."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

COLUMNS = ("measurement", "this project", "reference", "comparison", "goal", "met")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its unit. `about` explains it if the column does not."""

    value: float
    unit: str
    about: str = ""

    def __str__(self) -> str:
        words = f"{_plain(self.value)} {self.unit}".rstrip()
        return f"{words} ({self.about})" if self.about else words


class Bound(StrEnum):
    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound for the figure in the column `comparison`."""

    bound: Bound
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.bound} {_plain(self.value)} {self.unit}".rstrip()

    def is_met_by(self, value: float) -> bool:
        return value <= self.value if self.bound is Bound.AT_MOST else value >= self.value


def at_most(value: float, unit: str = "") -> Goal:
    return Goal(bound=Bound.AT_MOST, value=value, unit=unit)


def at_least(value: float, unit: str = "") -> Goal:
    return Goal(bound=Bound.AT_LEAST, value=value, unit=unit)


@dataclass(frozen=True, kw_only=True)
class Row:
    """`against` is compared with the goal: a difference or a ratio. A row without a goal is information
    only."""

    work: str
    ours: Figure
    reference: Figure | str
    against: Figure
    goal: Goal | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        return self.goal.is_met_by(self.against.value) if self.goal else None

    @property
    def cells(self) -> tuple[str, ...]:
        met = {True: "yes", False: "**no**", None: ""}[self.is_met]
        return (
            self.work,
            str(self.ours),
            str(self.reference),
            str(self.against),
            str(self.goal or ""),
            met,
        )


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table, followed by the numbered notes."""
    notes = [row.note for row in rows if row.note]
    numbers = {note: number for number, note in enumerate(dict.fromkeys(notes), start=1)}
    lines = [COLUMNS, tuple("---" for _ in COLUMNS)]
    lines += [_with_mark(row, numbers) for row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    footnotes = "\n".join(f"{number}. {note}" for note, number in numbers.items())
    return f"{table}\n\n{footnotes}\n" if footnotes else f"{table}\n"


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest value that is not exceeded by `percent` percent of the values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _with_mark(row: Row, numbers: dict[str, int]) -> tuple[str, ...]:
    work, *others = row.cells
    return (f"{work} [{numbers[row.note]}]" if row.note else work, *others)


def _plain(value: float) -> str:
    """Formats with three significant digits."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
