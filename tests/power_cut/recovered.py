"""Finds what a server would find in a state of the model: opens the stores on it, as a start does."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfyui_workflow.errors import BatchNotFound
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.files.runs import FileRunStore
from tests.instances.files import directory_in
from tests.power_cut.judgement import Finding, Kind
from tests.power_cut.model import Record, State
from tests.server_process import Json


@dataclass(kw_only=True)
class Promises:
    """Returns the findings so far."""

    runs: set[str] = field(default_factory=set)
    batches: dict[str, list[str]] = field(default_factory=dict)
    uploads: set[str] = field(default_factory=set)
    instances: dict[str, float | None] = field(default_factory=dict)
    """With the price of each."""
    cancelled: set[str] = field(default_factory=set)
    priorities: dict[str, int] = field(default_factory=dict)
    posted: dict[str, str] = field(default_factory=dict)
    """Prompt ids by run."""
    completed: dict[str, list[Json]] = field(default_factory=dict)

    def hear(self, mark: Record) -> None:
        if mark["what"] == "posting":
            self.posted[mark["run_id"]] = mark["prompt_id"]
            return
        body, parts = mark["body"], mark["path"].removeprefix("/comfyui/").split("/")
        match [mark["method"], *parts]:
            case ["POST", "workflow", "execute"]:
                self.runs.add(body["workflow_id"])
            case ["POST", "workflow", "batch"]:
                self.batches[body["batch_id"]] = body["workflow_ids"]
                self.runs.update(body["workflow_ids"])
            case ["POST", "workflow", "files"]:
                self.uploads.add(body["path"])
            case ["POST", "instances"] | ["PATCH", "instances", _]:
                self.instances[body["instance"]["name"]] = body["instance"]["price_per_hour"]
            case ["POST", "", "v2", _, "run"]:
                self.runs.add(body["id"])
            case ["POST", "workflow", "batch", batch_id, "cancel"]:
                self.cancelled.update(self.batches[batch_id])
            case ["POST", "workflow", run_id, "cancel"]:
                self.cancelled.add(run_id)
            case ["GET", "workflow", run_id, "progress"]:
                self.priorities[run_id] = body["progress"]["priority"]
                if body["progress"]["status"] == "completed":
                    self.completed[run_id] = body["progress"]["outputs"]


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The recovery from states of the files below `root`, rebuilt below `place`. `whole` has what each file
    held in the end."""

    root: Path
    place: Path
    data: str
    """The data directory, below both."""
    whole: Mapping[str, bytes]
    in_the_end: Promises
    """A run may be there before it is promised."""

    def findings(self, state: State, promises: Promises) -> list[Finding]:
        self._build(state)
        store = FileRunStore(self.place / self.data, None)
        store.open()
        try:
            return [
                *self.of_files(state, promises),
                *self._of_runs(store, promises),
                *self._of_outputs(state, store),
                *self._of_batches(promises),
                *self._of_instances(promises),
            ]
        finally:
            store.close()

    def _build(self, state: State) -> None:
        """The records. Pictures are looked up in the state itself, which is quicker."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        data = str(self.root / self.data)
        for path in sorted(state.directories):
            if path.startswith(data):
                self._here(path).mkdir()
        for path, content in state.files.items():
            if path.startswith(data) and not path.endswith(".png"):
                self._here(path).write_bytes(content)

    def _here(self, path: str) -> Path:
        return self.place / Path(path).relative_to(self.root)

    def _difference(self, state: State, path: str) -> str | None:
        content = state.files.get(path)
        if content is None:
            return "is not there"
        if content == self.whole[path]:
            return None
        return f"has {len(content)} bytes, not {len(self.whole[path])}" if content else "is empty"

    def of_files(self, state: State, promises: Promises) -> Iterator[Finding]:
        """Checks uploads and outputs: needs no store."""
        for path in promises.uploads:
            if (trouble := self._difference(state, path)) is not None:
                yield Finding(kind=Kind.UPLOAD_LOST, what=f"{Path(path).name} {trouble}")
        for run_id, outputs in promises.completed.items():
            for output in outputs:
                if (trouble := self._difference(state, output["local_path"])) is not None:
                    what = f"{Path(output['local_path']).name} of {run_id} {trouble}"
                    yield Finding(kind=Kind.OUTPUT_LOST, what=what)

        for path, content in state.files.items():
            name = Path(path).name
            is_output = path.endswith(".png") and not path.startswith(str(self.root / self.data))
            if is_output and not name.startswith(".") and content != self.whole[path]:
                yield Finding(kind=Kind.STRAY, what=f"{name} has its name, and {len(content)} bytes")

    def _of_runs(self, store: FileRunStore, promises: Promises) -> Iterator[Finding]:
        for run_id in promises.runs:
            run = store.get(run_id)
            if run is None:
                yield Finding(kind=Kind.RUN_LOST, what=run_id)
            else:
                yield from self._of_run(run, promises)
        for summary in store.summaries():
            run = store.get(summary.run_id)
            if run is None or run.status != summary.status:
                what = f"{summary.run_id} is {summary.status} in the list, and {run and run.status}"
                yield Finding(kind=Kind.LIST_UNTRUE, what=what)
        for path in (self.place / self.data / "runs" / "set-aside").glob("*"):
            if path.name.rpartition("-")[0] in promises.runs:
                yield Finding(kind=Kind.SET_ASIDE, what=path.name)

    def _of_run(self, run: Run, promises: Promises) -> Iterator[Finding]:
        run_id = run.run_id
        prompt_id = promises.posted.get(run_id)
        if prompt_id is not None and run.prompt_id != prompt_id:
            yield Finding(kind=Kind.TWICE, what=f"{run_id}: its id is {run.prompt_id}, not {prompt_id}")
        if run_id in promises.completed and run.status != "completed":
            yield Finding(kind=Kind.TAKEN_BACK, what=f"{run_id} is {run.status}")
        is_over = run.is_cancel_requested or run.is_finished or self._is_batch_cancelled(run)
        if run_id in promises.cancelled and not is_over:
            yield Finding(kind=Kind.CANCEL_FORGOTTEN, what=run_id)
        priority = promises.priorities.get(run_id, run.priority)
        if run.priority not in (priority, self.in_the_end.priorities.get(run_id)):
            what = f"{run_id} has {run.priority}, not {priority}"
            yield Finding(kind=Kind.PRIORITY_FORGOTTEN, what=what)

    def _is_batch_cancelled(self, run: Run) -> bool:
        """Then the next start cancels its runs."""
        with contextlib.suppress(BatchNotFound):
            batch_id = run.request.batch_id
            return batch_id is not None and self._batches().get(batch_id).cancelled_at is not None
        return False

    def _batches(self) -> FileBatchStore:
        files = FileBatchStore(self.place / self.data / "batches")
        files.open()
        return files

    def _of_outputs(self, state: State, store: FileRunStore) -> Iterator[Finding]:
        """Checks that every run has the files that it names."""
        for run in store.page(1000):
            for output in run.outputs:
                if output.local_path is not None and (trouble := self._difference(state, output.local_path)):
                    what = f"{output.filename} of {run.run_id} {trouble}"
                    yield Finding(kind=Kind.OUTPUT_UNTRUE, what=what)

    def _of_batches(self, promises: Promises) -> Iterator[Finding]:
        files = self._batches()
        for batch_id in promises.batches:
            try:
                files.get(batch_id)
            except BatchNotFound:
                yield Finding(kind=Kind.BATCH_LOST, what=batch_id)

    def _of_instances(self, promises: Promises) -> Iterator[Finding]:
        directory = directory_in(self.place / self.data / "instances.json")
        directory.load()
        found = {instance.name: instance.price_per_hour for instance in directory.all()}
        for name, price in promises.instances.items():
            if name not in found or found[name] not in (price, self.in_the_end.instances[name]):
                yield Finding(kind=Kind.INSTANCE_LOST, what=f"{name} at {price}: {found.get(name)}")


def promises_at(records: Sequence[Record], until: int) -> Promises:
    promises = Promises()
    for record in records[:until]:
        if record["op"] == "mark":
            promises.hear(record)
    return promises
