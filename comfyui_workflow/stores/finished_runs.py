"""The keys of finished runs in columns, which take a third of the memory of an object for each run."""

from array import array
from datetime import UTC, datetime
from math import isnan, nan
from operator import attrgetter
from typing import Any

from comfyui_workflow.runs.model import Stay
from comfyui_workflow.stores.sorted_ids import SortedIds
from comfyui_workflow.stores.summary_keys import SummaryKeys

TEXTS = (
    "workflow_name",
    "ssh_connection",
    "status",
    "instance_id",
    "instance_name",
    "batch_id",
    "graph_signature",
)
NUMBERS = ("prompt_s", "price_per_hour", "gpu_s")
TIMES = ("start_time", "end_time")
_texts_of, _numbers_of, _times_of = attrgetter(*TEXTS), attrgetter(*NUMBERS), attrgetter(*TIMES)
_BATCH = TEXTS.index("batch_id")
_NO_ROW = -1


class FinishedRuns:
    """`SummaryKeys` by position of the run in `ids`. Not thread-safe."""

    def __init__(self, ids: SortedIds) -> None:
        self._ids = ids
        self._rows = array("q", [_NO_ROW]) * len(ids)
        self._texts = Texts()
        self._columns: tuple[array[Any], ...] = (
            *(array("L") for _ in TEXTS),
            *(array("d") for _ in (*NUMBERS, *TIMES)),
        )
        self._stays: dict[int, tuple[Stay, ...]] = {}
        """By row. Most runs have none."""

    def make_room(self, position: int) -> None:
        """To be called when an id was inserted."""
        self._rows.insert(position, _NO_ROW)

    def get(self, position: int) -> SummaryKeys | None:
        row = self._rows[position]
        return None if row == _NO_ROW else self._read(self._ids[position], row)

    def batch_id(self, position: int) -> str | None:
        """Returns the batch of a finished run."""
        row = self._rows[position]
        return None if row == _NO_ROW else self._texts[self._columns[_BATCH][row]]

    def set(self, position: int, keys: SummaryKeys) -> None:
        row, stored = self._rows[position], self._encode(keys)
        if row == _NO_ROW:
            row = self._rows[position] = len(self._columns[0])
            for column, value in zip(self._columns, stored, strict=True):
                column.append(value)
        else:
            for column, value in zip(self._columns, stored, strict=True):
                column[row] = value
            self._stays.pop(row, None)
        if keys.stays:
            self._stays[row] = keys.stays

    def remove(self, position: int) -> None:
        """The row stays unused: few runs continue after their end."""
        self._rows[position] = _NO_ROW

    def _encode(self, keys: SummaryKeys) -> tuple[float, ...]:
        """Returns the value for each column."""
        texts = map(self._texts.number, _texts_of(keys))
        numbers = [nan if number is None else number for number in _numbers_of(keys)]
        times = [nan if time is None else time.timestamp() for time in _times_of(keys)]
        return (*texts, *numbers, *times)

    def _read(self, run_id: str, row: int) -> SummaryKeys:
        values = [column[row] for column in self._columns]
        texts, numbers = values[: len(TEXTS)], values[len(TEXTS) : -len(TIMES)]
        fields: dict[str, Any] = dict(zip(TEXTS, map(self._texts.__getitem__, texts), strict=True))
        fields |= zip(NUMBERS, (None if isnan(each) else each for each in numbers), strict=True)
        fields |= zip(TIMES, map(_time, values[-len(TIMES) :]), strict=True)
        return SummaryKeys(run_id=run_id, stays=self._stays.get(row, ()), **fields)


class Texts:
    """Numbers for texts of which many are equal. 0 is None."""

    def __init__(self) -> None:
        self._by_number: list[str | None] = [None]
        self._numbers: dict[str | None, int] = {None: 0}

    def __getitem__(self, number: int) -> str | None:
        return self._by_number[number]

    def number(self, text: str | None) -> int:
        number = self._numbers.setdefault(text, len(self._by_number))
        if number == len(self._by_number):
            self._by_number.append(text)
        return number


def _time(timestamp: float) -> datetime | None:
    return None if isnan(timestamp) else datetime.fromtimestamp(timestamp, UTC)
