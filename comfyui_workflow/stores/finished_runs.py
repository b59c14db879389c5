"""The keys of finished runs as rows of equal size in one block of memory: a third of what objects take."""

from array import array
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from math import isnan, nan
from struct import Struct

from comfyui_workflow.runs.model import Stay
from comfyui_workflow.stores.sorted_ids import SortedIds
from comfyui_workflow.stores.summary_keys import SummaryKeys

_ROW = Struct("=8I5d")
"""The number of each text; each number or time, NaN for None."""
_BATCH = 5
_in_order: Callable[..., SummaryKeys] = SummaryKeys
_NO_ROW = -1


class FinishedRuns:
    """`SummaryKeys` by position of the run in `ids`. Not thread-safe."""

    def __init__(self, ids: SortedIds) -> None:
        self._ids = ids
        self._row_numbers = array("q", [_NO_ROW]) * len(ids)
        self._rows = bytearray()
        self._texts = Texts()
        self._stays: dict[int, tuple[Stay, ...]] = {}
        """By number of the row. Most runs have none."""

    def make_room(self, position: int) -> None:
        """To be called when an id was inserted."""
        self._row_numbers.insert(position, _NO_ROW)

    def get(self, position: int) -> SummaryKeys | None:
        number = self._row_numbers[position]
        if number == _NO_ROW:
            return None
        row = _ROW.unpack_from(self._rows, number * _ROW.size)
        *texts, parent_id = self._texts.texts(row[:8])
        numbers, stays, times = map(_number, row[8:11]), self._stays.get(number, ()), map(_time, row[11:])
        return _in_order(self._ids[position], *texts, *numbers, stays, *times, parent_id)

    def batch_id(self, position: int) -> str | None:
        """Returns the batch of a finished run."""
        number = self._row_numbers[position]
        if number == _NO_ROW:
            return None
        return self._texts[_ROW.unpack_from(self._rows, number * _ROW.size)[_BATCH]]

    def set(self, position: int, keys: SummaryKeys) -> None:
        number = self._row_numbers[position]
        if number == _NO_ROW:
            number = self._row_numbers[position] = len(self._rows) // _ROW.size
            self._rows += self._row(keys)
        else:
            self._rows[number * _ROW.size : (number + 1) * _ROW.size] = self._row(keys)
            self._stays.pop(number, None)
        if keys.stays:
            self._stays[number] = keys.stays

    def remove(self, position: int) -> None:
        """Its row stays unused: few runs continue after their end."""
        self._row_numbers[position] = _NO_ROW

    def _row(self, keys: SummaryKeys) -> bytes:
        number = self._texts.number
        return _ROW.pack(
            number(keys.workflow_name),
            number(keys.ssh_connection),
            number(keys.status),
            number(keys.instance_id),
            number(keys.instance_name),
            number(keys.batch_id),
            number(keys.graph_signature),
            number(keys.parent_id),
            nan if keys.prompt_s is None else keys.prompt_s,
            nan if keys.price_per_hour is None else keys.price_per_hour,
            keys.gpu_s,
            nan if keys.start_time is None else keys.start_time.timestamp(),
            nan if keys.end_time is None else keys.end_time.timestamp(),
        )


class Texts:
    """Numbers for texts of which many are equal. 0 is None."""

    def __init__(self) -> None:
        self._by_number: list[str | None] = [None]
        self._numbers: dict[str | None, int] = {None: 0}

    def __getitem__(self, number: int) -> str | None:
        return self._by_number[number]

    def texts(self, numbers: Iterable[int]) -> list[str | None]:
        known = self._by_number
        return [known[number] for number in numbers]

    def number(self, text: str | None) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._by_number)
            self._by_number.append(text)
        return number


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _time(timestamp: float) -> datetime | None:
    return None if isnan(timestamp) else datetime.fromtimestamp(timestamp, UTC)
