"""Index of the runs of a store: by age, by batch, and by the fields of a filter.

How it works: unfinished runs are few and change often, so a filter checks the summary of each. Finished runs
are in bit sets: bit n of a set is the run at position n in the order of ids. There is one set for each
status, workflow name and instance. A filter combines sets, so it reads only the summaries of the matching
runs, and counting reads no finished run. A finished run takes about 130 bytes in memory, and no object of its
own."""

import itertools
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from comfyui_workflow.runs.model import Run, idempotency_key_of
from comfyui_workflow.runs.summary import EVERY_LISTED_RUN, EVERY_RUN, RunFilter, RunSummary, summary_of
from comfyui_workflow.stores.base import BillableRun, Wanted
from comfyui_workflow.stores.bitset import Bits, Positions, below, bits_of, highest_first, union
from comfyui_workflow.stores.finished_runs import FinishedRuns
from comfyui_workflow.stores.sorted_ids import SortedIds
from comfyui_workflow.stores.summary_keys import SummaryKeys, instance_words


@dataclass(kw_only=True)
class KeptRun:
    """A run in memory. Its summary is computed on demand, once for each change of the run."""

    run: Run
    _made: tuple[Run, RunSummary] | None = field(default=None, init=False, repr=False)

    @property
    def summary(self) -> RunSummary:
        run, made = self.run, self._made
        if made is None or made[0] is not run:
            made = self._made = (run, summary_of(run))
        return made[1]


class RunIndex:
    """See the module. Runs are added and never removed. Thread-safe."""

    def __init__(self, summary_of_id: Callable[[str], RunSummary | None]) -> None:
        self._summary_of_id = summary_of_id
        self._lock = threading.Lock()
        self._ids = SortedIds()
        self._unfinished: dict[str, str | None] = {}
        """Batch ids by run id."""
        self._unfinished_parts: set[str] = set()
        self._finished = FinishedRuns(self._ids)
        self._batches: dict[str, SortedIds] = {}
        self._changes: Counter[str] = Counter()
        self._unfinished_of_batch: Counter[str] = Counter()
        self._index = _Index()
        self._ids_by_key: dict[str, str] = {}

    def add(self, run_id: str, batch_id: str | None, *, is_part: bool = False) -> None:
        """Adds an unfinished run. Idempotent. A finished run becomes unfinished."""
        with self._lock:
            position = self._add_id(run_id, batch_id)
            known = self._finished.get(position)
            if known is not None:
                self._finished.remove(position)
                self._index.remove(position, known)
            if is_part:
                self._unfinished_parts.add(run_id)
            if run_id not in self._unfinished:
                self._unfinished[run_id] = batch_id
                self._count_change(batch_id, +1)

    def add_finished(self, found: Iterable[SummaryKeys]) -> None:
        """Adds many finished runs. For a new index this is much faster than single calls of `end`."""
        with self._lock:
            known = {run_id: keys for run_id in self._ids if (keys := self._keys_of(run_id)) is not None}
            known.update((keys.run_id, keys) for keys in found)
            self._ids = SortedIds(itertools.chain(self._ids, known))
            self._finished = FinishedRuns(self._ids)
            self._index = _Index()
            batches = defaultdict[str, list[str]](list)
            for position, run_id in enumerate(self._ids):
                keys = known.get(run_id)
                if keys is not None:
                    self._finished.set(position, keys)
                    self._index.add(position, keys)
                batch_id = self._unfinished.get(run_id) if keys is None else keys.batch_id
                if batch_id is not None:
                    batches[batch_id].append(run_id)
            self._batches = {batch_id: SortedIds(ids) for batch_id, ids in batches.items()}
            self._ids_by_key = _newest_by_key(self._ids)

    def end(self, keys: SummaryKeys) -> None:
        """Marks a run as finished; `keys` are the fields of its final summary."""
        with self._lock:
            position = self._add_id(keys.run_id, keys.batch_id)
            known = self._finished.get(position)
            if known is not None:
                self._index.remove(position, known)
            self._finished.set(position, keys)
            self._index.add(position, keys)
            was_unfinished = keys.run_id in self._unfinished
            self._unfinished.pop(keys.run_id, None)
            self._unfinished_parts.discard(keys.run_id)
            self._count_change(keys.batch_id, -1 if was_unfinished else 0)

    def batch_stamp(self, batch_id: str) -> int | None:
        with self._lock:
            return None if self._unfinished_of_batch[batch_id] else self._changes[batch_id]

    def duration_samples(self, most: int) -> list[SummaryKeys]:
        """Returns the newest `most` finished runs with a prompt duration, oldest first."""
        with self._lock:
            newest = map(self._finished.get, range(len(self._ids) - 1, -1, -1))
            timed = (keys for keys in newest if keys is not None and keys.prompt_s is not None)
            return list(itertools.islice(timed, most))[::-1]

    def billable_runs(self) -> list[BillableRun]:
        with self._lock:
            finished, unfinished = map(self._finished.get, range(len(self._ids))), list(self._unfinished)
            ended = [keys for keys in finished if keys is not None]
        return [*ended, *self._summaries(unfinished)]

    def latest_id(self) -> str | None:
        with self._lock:
            return self._ids[-1] if self._ids else None

    def latest_listed_id(self) -> str | None:
        """Returns the greatest id of a run that is no part of another one."""
        return next(self.listed_ids(), None)

    def listed_ids(self) -> Iterator[str]:
        """Yields the ids of the runs that are no part of another one, newest first."""
        with self._lock:
            positions = highest_first(self._listed_bits())
        return map(self._id_at, positions)

    def by_idempotency_key(self, key: str) -> str | None:
        with self._lock:
            return self._ids_by_key.get(key)

    def newest_ids(self, limit: int | None = None, before: str | None = None) -> list[str]:
        with self._lock:
            return _newest(self._ids, limit, before)

    def newest(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        return list(itertools.islice(self._select(before, wanted), limit))

    def grouped(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """Returns summaries as `newest` does, but for each batch only its newest wanted run."""
        ids = self._grouped_ids(limit, before, self._bits_wanted(wanted))
        return list(self._summaries(ids))

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        """Returns the summaries of a batch, oldest first."""
        with self._lock:
            ids = list(self._batches.get(batch_id, ()))
        return list(self._summaries(ids))

    def count(self, wanted: Wanted) -> int:
        if wanted == EVERY_RUN:
            with self._lock:
                return len(self._ids)
        if wanted == EVERY_LISTED_RUN:
            with self._lock:
                return self._listed_bits().bit_count()
        return self._bits_wanted(wanted).bit_count()

    def _select(self, before: str | None, wanted: Wanted) -> Iterator[RunSummary]:
        """Yields the wanted summaries, newest first."""
        if wanted == EVERY_RUN:
            return self._summaries(self._walk(before))
        bits = self._bits_wanted(wanted)
        with self._lock:
            older = bits if before is None else bits & below(self._ids.place(before))
        return self._summaries(map(self._id_at, highest_first(older)))

    def _walk(self, before: str | None) -> Iterator[str]:
        """Yields every id, newest first. Takes the lock once for 500 ids."""
        while ids := self.newest_ids(500, before):
            yield from ids
            before = ids[-1]

    def _grouped_ids(self, limit: int | None, before: str | None, bits: int) -> list[str]:
        found: list[str] = []
        with self._lock:
            end = len(self._ids) if before is None else self._ids.place(before)
            left = bits & below(end)
            while left and (limit is None or len(found) < limit):
                position = left.bit_length() - 1
                batch_id = self._batch_at(position)
                mask = 1 << position if batch_id is None else self._batch_bits(batch_id)
                left ^= left & mask
                if not (bits & mask) >> end:
                    found.append(self._ids[position])
        return found

    def _bits_wanted(self, wanted: Wanted) -> int:
        """Returns the positions of the wanted runs. Checks the summaries of the unfinished runs; of all runs
        if `wanted` is a function."""
        if wanted in (EVERY_RUN, EVERY_LISTED_RUN):
            with self._lock:
                return self._listed_bits() if wanted == EVERY_LISTED_RUN else below(len(self._ids))
        if not isinstance(wanted, RunFilter):
            ids = self.newest_ids()
            return self._bits_of([each for each in ids if self._is_wanted(each, wanted)])
        with self._lock:
            unfinished = list(self._unfinished)
        matching = [each for each in unfinished if self._is_wanted(each, wanted.matches)]
        with self._lock:
            found = self._finished_wanted(wanted)
            return found | bits_of(map(self._position, matching))

    def _listed_bits(self) -> int:
        """Returns the positions of all runs that are no part of another one. The caller holds the lock."""
        parts = self._index.parts | bits_of(map(self._position, self._unfinished_parts))
        return below(len(self._ids)) & ~parts

    def _finished_wanted(self, wanted: RunFilter) -> int:
        found = self._index.with_status(wanted.statuses)
        if not wanted.with_parts:
            found &= ~self._index.parts
        if wanted.batch_id is not None:
            found &= self._batch_bits(wanted.batch_id)
        if wanted.instance is not None:
            found &= self._index.at_instance(wanted.instance)
        if wanted.name_contains is not None:
            named = self._index.with_name(wanted.name_contains)
            for batch_id in wanted.batches_named:
                named |= self._batch_bits(batch_id)
            found &= named
        return found

    def _is_wanted(self, run_id: str, matches: Callable[[RunSummary], bool]) -> bool:
        summary = self._summary_of_id(run_id)
        return summary is not None and matches(summary)

    def _bits_of(self, ids: Iterable[str]) -> int:
        with self._lock:
            return bits_of(map(self._position, ids))

    def _batch_bits(self, batch_id: str) -> int:
        """Returns the positions of a batch's runs. They are usually consecutive, because the runs were added
        together."""
        ids = self._batches.get(batch_id)
        if not ids:
            return 0
        first, last = self._position(ids[0]), self._position(ids[-1])
        if last - first + 1 == len(ids):
            return below(len(ids)) << first
        return bits_of(map(self._position, ids))

    def _summaries(self, ids: Iterable[str]) -> Iterator[RunSummary]:
        return (summary for summary in map(self._summary_of_id, ids) if summary is not None)

    def _add_id(self, run_id: str, batch_id: str | None) -> int:
        """Adds an id and returns its position. Usually it is the greatest; otherwise the positions of others
        change, and the index is built again."""
        if batch_id is not None:
            self._batches.setdefault(batch_id, SortedIds()).insert(run_id)
        position = self._ids.insert(run_id)
        if position is None:
            return self._position(run_id)
        self._finished.make_room(position)
        key = idempotency_key_of(run_id)
        if key is not None:
            self._ids_by_key[key] = max(run_id, self._ids_by_key.get(key, ""))
        if position < len(self._ids) - 1:
            self._build_index()
        return position

    def _build_index(self) -> None:
        self._index = _Index()
        for position in range(len(self._ids)):
            keys = self._finished.get(position)
            if keys is not None:
                self._index.add(position, keys)

    def _keys_of(self, run_id: str) -> SummaryKeys | None:
        return self._finished.get(self._position(run_id))

    def _batch_at(self, position: int) -> str | None:
        return self._finished.batch_id(position) or self._unfinished.get(self._ids[position])

    def _id_at(self, position: int) -> str:
        with self._lock:
            return self._ids[position]

    def _position(self, run_id: str) -> int:
        return self._ids.place(run_id)

    def _count_change(self, batch_id: str | None, unfinished: int) -> None:
        if batch_id is not None:
            self._changes[batch_id] += 1
            self._unfinished_of_batch[batch_id] += unfinished


class _Index:
    """Positions of the finished runs by the fields of a filter. The caller holds the lock."""

    def __init__(self) -> None:
        self._statuses: defaultdict[str, Bits] = defaultdict(Bits)
        self._names: defaultdict[str, Positions] = defaultdict(Positions)
        self._instances: defaultdict[str, Positions] = defaultdict(Positions)
        self._parts = Positions()

    @property
    def parts(self) -> int:
        """Positions of the runs that are parts of others."""
        return union([self._parts])

    def add(self, position: int, keys: SummaryKeys) -> None:
        self._statuses[keys.status].add(position)
        self._names[sys.intern(keys.workflow_name.casefold())].add(position)
        for word in instance_words(keys):
            self._instances[word].add(position)
        if keys.parent_id is not None:
            self._parts.add(position)

    def remove(self, position: int, keys: SummaryKeys) -> None:
        self._statuses[keys.status].discard(position)
        self._names[keys.workflow_name.casefold()].discard(position)
        for word in instance_words(keys):
            self._instances[word].discard(position)
        if keys.parent_id is not None:
            self._parts.discard(position)

    def with_status(self, statuses: Iterable[str]) -> int:
        """Returns the positions of runs with one of these statuses; of all finished runs if there is none."""
        found = 0
        for status in tuple(statuses) or tuple(self._statuses):
            if status in self._statuses:
                found |= self._statuses[status].value
        return found

    def with_name(self, part: str) -> int:
        """Returns the positions of runs whose workflow name contains `part`; ignores case."""
        part = part.casefold()
        return union(positions for name, positions in self._names.items() if part in name)

    def at_instance(self, instance: str) -> int:
        positions = self._instances.get(instance.casefold())
        return 0 if positions is None else union([positions])


def _newest_by_key(ids: Iterable[str]) -> dict[str, str]:
    """Maps each idempotency key to its newest run. `ids` are in ascending order."""
    return {key: run_id for run_id in ids if (key := idempotency_key_of(run_id)) is not None}


def _newest(ids: SortedIds, limit: int | None, before: str | None) -> list[str]:
    end = len(ids) if before is None else ids.place(before)
    return ids[0 if limit is None else max(0, end - limit) : end][::-1]
