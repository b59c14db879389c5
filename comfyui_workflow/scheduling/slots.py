"""The places of one instance: which of our runs are on their way to it, and which have a prompt there."""

from dataclasses import dataclass, field
from datetime import datetime

Order = tuple[int, str]
"""Priority first, then age: `Waiting.order`."""

HEAD_START_S = 2.0
"""How long whoever is ready waits for one that goes before it, while the GPU may have nothing to do."""


@dataclass(kw_only=True)
class OnTheWay:
    """Carried out, without a prompt there."""

    order: Order
    is_ready: bool = False
    is_held: bool = False
    """It waits until files of another run are fetched, and keeps nobody else waiting for that."""
    waited_for_until_s: float | None = None

    def keeps_others_waiting(self, at_s: float) -> bool:
        """Always once it is ready. Before that each is waited for once: it may be sending large files."""
        if self.waited_for_until_s is None:
            self.waited_for_until_s = at_s + HEAD_START_S
        return not self.is_held and (self.is_ready or at_s < self.waited_for_until_s)


@dataclass
class Seats:
    """To be guarded by its owner. Runs that fetch their outputs take no place: the GPU is free again.

    Prompts arrive in the order of their runs: one is submitted at a time."""

    on_the_way: dict[str, OnTheWay] = field(default_factory=dict)
    with_prompt: set[str] = field(default_factory=set)
    keeping_names: set[str] = field(default_factory=set)
    """Runs whose files there another prompt may write over; from before they submit until they have left."""
    submitting: str | None = None
    """The run whose prompt is just being submitted."""
    models: frozenset[str] = frozenset()
    """Files of the last prompt of ours, which was submitted then."""
    models_at: datetime | None = None

    @property
    def taken(self) -> int:
        return len(self.on_the_way) + len(self.with_prompt)

    def loaded(self, emptied_at: datetime | None) -> frozenset[str]:
        """What the last prompt left in the memory of the instance, unless that was emptied since."""
        is_gone = emptied_at is not None and self.models_at is not None and emptied_at >= self.models_at
        return frozenset() if is_gone else self.models

    def expect(self, run_id: str, order: Order) -> None:
        self.on_the_way[run_id] = OnTheWay(order=order)

    def ask(self, run_id: str, most: int, at_s: float, *, may_overwrite: bool = False) -> bool:
        """Whether the run, which is ready, may submit now: to be told by `stop_asking` when it has, or could
        not. One that `may_overwrite` files of another waits until those are fetched, and its own are kept
        from the next one of that kind. `at_s`: monotonic."""
        if not self._is_next(run_id, most, at_s):
            return False
        if may_overwrite:
            if self._is_to_be_held(run_id):
                return False
            self.keeping_names.add(run_id)
        self.take_place(run_id)
        self.submitting = run_id
        return True

    def _is_to_be_held(self, run_id: str) -> bool:
        """Whether another run keeps its names, or a held one goes before it."""
        asking = self.on_the_way.get(run_id)
        is_held = bool(self.keeping_names - {run_id})
        if asking is not None:
            before = (each for each in self.on_the_way.values() if each.order < asking.order)
            asking.is_held = is_held or any(each.is_held for each in before)
            return asking.is_held
        return is_held

    def _is_next(self, run_id: str, most: int, at_s: float) -> bool:
        asking = self.on_the_way.get(run_id)
        if asking is not None:
            asking.is_ready = True
        if self.submitting is not None:
            return False
        if asking is None:
            return run_id in self.with_prompt
        if len(self.with_prompt) >= most:
            return False
        before = (each for each in self.on_the_way.values() if each.order < asking.order)
        waits_for = [each for each in before if each.keeps_others_waiting(at_s)]
        return not waits_for

    def waits_for_s(self, run_id: str, at_s: float) -> float | None:
        """How long the runs that go before it may still be waited for, because they are not ready; None
        where time alone gives it no place."""
        asking = self.on_the_way.get(run_id)
        head_starts = [
            each.waited_for_until_s - at_s
            for each in self.on_the_way.values()
            if asking is not None
            and each.order < asking.order
            and each.waited_for_until_s is not None
            and each.waited_for_until_s > at_s
        ]
        return min(head_starts, default=None)

    def stop_asking(self, run_id: str) -> None:
        if self.submitting == run_id:
            self.submitting = None
        if run_id in self.on_the_way:
            self.on_the_way[run_id].is_ready = self.on_the_way[run_id].is_held = False

    def is_asking(self, run_id: str) -> bool:
        return run_id in self.on_the_way and self.on_the_way[run_id].is_ready

    def is_held(self, run_id: str) -> bool:
        """Whether it waits for files of another run, and for nothing else."""
        return run_id in self.on_the_way and self.on_the_way[run_id].is_held

    def take_place(self, run_id: str) -> None:
        self.on_the_way.pop(run_id, None)
        self.with_prompt.add(run_id)

    def leave_place(self, run_id: str) -> None:
        """Its prompt is over; its files are still there."""
        self.stop_asking(run_id)
        self.on_the_way.pop(run_id, None)
        self.with_prompt.discard(run_id)

    def leave(self, run_id: str) -> None:
        self.leave_place(run_id)
        self.keeping_names.discard(run_id)

    def ahead_of(self, run_id: str) -> int:
        mine = self.on_the_way.get(run_id)
        before = (each for each in self.on_the_way.values() if mine is None or each.order < mine.order)
        return len(self.with_prompt) + sum(1 for _ in before)
