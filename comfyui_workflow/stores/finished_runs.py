"""The keys of finished runs in columns, which take a third of the memory of an object for each run."""

from array import array
from datetime import UTC, datetime
from math import isnan, nan

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
_NO_ROW = -1


class FinishedRuns:
    """`SummaryKeys` by position of the run in `ids`. Not thread-safe."""

    def __init__(self, ids: SortedIds) -> None:
        self._ids = ids
        self._rows = array("q", [_NO_ROW]) * len(ids)
        self._texts = Texts()
        self._text_columns = {name: array("L") for name in TEXTS}
        self._number_columns = {name: array("d") for name in (*NUMBERS, *TIMES)}
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
        return None if row == _NO_ROW else self._texts[self._text_columns["batch_id"][row]]

    def set(self, position: int, keys: SummaryKeys) -> None:
        row = self._rows[position]
        if row == _NO_ROW:
            row = self._rows[position] = self._append_row()
        self._write(row, keys)

    def remove(self, position: int) -> None:
        """The row stays unused: few runs continue after their end."""
        self._rows[position] = _NO_ROW

    def _append_row(self) -> int:
        for texts in self._text_columns.values():
            texts.append(0)
        for numbers in self._number_columns.values():
            numbers.append(nan)
        return len(self._text_columns["status"]) - 1

    def _write(self, row: int, keys: SummaryKeys) -> None:
        for name, texts in self._text_columns.items():
            texts[row] = self._texts.number(getattr(keys, name))
        for name in NUMBERS:
            number = getattr(keys, name)
            self._number_columns[name][row] = nan if number is None else number
        for name in TIMES:
            time = getattr(keys, name)
            self._number_columns[name][row] = nan if time is None else time.timestamp()
        self._stays.pop(row, None)
        if keys.stays:
            self._stays[row] = keys.stays

    def _read(self, run_id: str, row: int) -> SummaryKeys:
        texts = {name: self._texts[column[row]] for name, column in self._text_columns.items()}
        numbers = {name: _number(self._number_columns[name][row]) for name in NUMBERS}
        times = {name: _time(self._number_columns[name][row]) for name in TIMES}
        return SummaryKeys(run_id=run_id, stays=self._stays.get(row, ()), **texts, **numbers, **times)  # type: ignore[arg-type]


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


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _time(value: float) -> datetime | None:
    return None if isnan(value) else datetime.fromtimestamp(value, UTC)
