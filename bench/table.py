"""One line of the table: what was done, how long it took us, how long the others, what was promised."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

COLUMNS = ("work", "ours", "reference", "ours against it", "goal", "met")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its unit; `about` says what it is, where the column does not."""

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
    """Of the figure in `ours against it`."""

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
    """`against` is what the goal speaks of: a difference or a ratio. Without a goal it only informs."""

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
    """The table, and below it the notes, numbered."""
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
    """The smallest value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _with_mark(row: Row, numbers: dict[str, int]) -> tuple[str, ...]:
    work, *others = row.cells
    return (f"{work} [{numbers[row.note]}]" if row.note else work, *others)


def _plain(value: float) -> str:
    """Three digits that say something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
