"""The places of one instance: which of our runs are on their way to it, and which have a prompt there."""

from dataclasses import dataclass, field

Order = tuple[int, str]
"""Priority first, then age: `Waiting.order`."""


@dataclass
class Seats:
    """To be guarded by its owner. Runs that fetch their outputs take no place: the GPU is free again."""

    on_the_way: dict[str, Order] = field(default_factory=dict)
    """Carried out, without a prompt there."""
    asking: set[str] = field(default_factory=set)
    """Of those: ready to submit."""
    with_prompt: set[str] = field(default_factory=set)
    loaded: frozenset[str] = frozenset()
    """Model files of the last prompt of ours."""

    @property
    def taken(self) -> int:
        return len(self.on_the_way) + len(self.with_prompt)

    def ask(self, workflow_id: str, most: int) -> bool:
        """Whether the run has a place for its prompt: the first of those who ask gets one that is free."""
        if workflow_id in self.with_prompt:
            return True
        self.asking.add(workflow_id)
        first = min(self.asking, key=lambda each: self.on_the_way[each])
        if first != workflow_id or len(self.with_prompt) >= most:
            return False
        self.take_place(workflow_id)
        return True

    def take_place(self, workflow_id: str) -> None:
        self._forget(workflow_id)
        self.with_prompt.add(workflow_id)

    def leave(self, workflow_id: str) -> None:
        self._forget(workflow_id)
        self.with_prompt.discard(workflow_id)

    def ahead_of(self, workflow_id: str) -> int:
        order = self.on_the_way.get(workflow_id)
        before = (each for each in self.on_the_way.values() if order is None or each < order)
        return len(self.with_prompt) + sum(1 for _ in before)

    def _forget(self, workflow_id: str) -> None:
        self.on_the_way.pop(workflow_id, None)
        self.asking.discard(workflow_id)
