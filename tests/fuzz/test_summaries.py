"""Whatever happens to runs, and to the file of their summaries: the list says what the records say."""

import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.runs.events import Event, RetryRequested, RunFailed
from comfyui_workflow.runs.model import Run, RunStatus
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import RunFilter, summary_of
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.fuzz.effort import effort
from tests.fuzz.test_state_machine import happened
from tests.runs.test_state_machine import AT, new_run

MOST = 20


@dataclass(frozen=True)
class Add:
    numbers: tuple[int, ...]
    batch_id: str | None


@dataclass(frozen=True)
class Happen:
    number: int
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Reopen:
    torn: int | None
    """So many bytes of the last line that was appended did not arrive; None: of no line."""
    closes: bool


ends = st.just(RunFailed(code="connection_failed", message="x"))
steps = st.one_of(
    st.builds(
        Add,
        numbers=st.lists(st.integers(0, MOST - 1), max_size=3, unique=True).map(tuple),
        batch_id=st.sampled_from([None, "a", "b"]),
    ),
    st.builds(
        Happen,
        number=st.integers(0, MOST - 1),
        events=st.lists(st.one_of(happened, ends, st.just(RetryRequested())), max_size=4).map(tuple),
    ),
    st.builds(Reopen, torn=st.none() | st.integers(1, 400), closes=st.booleans()),
)


@effort(60)
@given(st.lists(steps, max_size=14))
def test_the_list_says_what_the_records_say(story: list[Add | Happen | Reopen]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        memory, root = MemoryRunStore(), Path(directory)
        store = opened(root)
        try:
            for step in story:
                if isinstance(step, Reopen):
                    store = reopened(store, root, step)
                else:
                    for each in (store, memory):
                        take(each, step)
                check(store)
                check(memory)
                assert [line.run_id for line in store.summaries()] == [
                    line.run_id for line in memory.summaries()
                ]
        finally:
            store.close()


def opened(root: Path) -> FileRunStore:
    store = FileRunStore(root, None, clock=lambda: 0.0)
    store.open()
    return store


def take(store: RunStore, step: Add | Happen) -> None:
    if isinstance(step, Add):
        new = [number for number in step.numbers if store.get(run_id(number)) is None]
        store.add_all([run_number(number, step.batch_id) for number in new])
    elif store.get(run_id(step.number)) is not None:
        for event in step.events:
            store.update(
                run_id(step.number),
                lambda run, event=event: apply(run, event, AT + timedelta(1)),  # type: ignore[misc]
                event.saving,
            )


def reopened(store: FileRunStore, root: Path, step: Reopen) -> FileRunStore:
    """Killed: the lock goes, nothing else is done."""
    if step.closes:
        store.close()
    else:
        store._lock_file.release()
    lines = root / "runs" / "finished.jsonl"
    if step.torn is not None and lines.exists():
        whole, _, last = lines.read_bytes().removesuffix(b"\n").rpartition(b"\n")
        if not last.startswith(b"struck"):  # that is on disk
            kept = last[: max(0, len(last) - step.torn)]
            lines.write_bytes(whole + b"\n" + kept if whole else kept)
    return opened(root)


def check(store: RunStore) -> None:
    runs = store.page(MOST + 1)
    lines = [summary_of(run) for run in runs]
    assert store.summaries() == lines
    assert store.count() == len(lines)
    for batch_id in ("a", "b"):
        assert store.of_batch(batch_id) == [line for line in reversed(lines) if line.batch_id == batch_id]
    failed = RunFilter(statuses=frozenset({RunStatus.FAILED}), batch_id="a")
    wanted = [line for line in lines if failed.matches(line)]
    assert store.summaries(wanted=failed) == wanted
    assert store.count(failed) == len(wanted)


def run_id(number: int) -> str:
    return f"comfyui_workflow_1700000000_{number:04x}"


def run_number(number: int, batch_id: str | None) -> Run:
    run = new_run()
    return replace(run, run_id=run_id(number), request=replace(run.request, batch_id=batch_id))
