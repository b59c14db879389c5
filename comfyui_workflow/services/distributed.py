"""One workflow over several instances: the pictures of all parts are collected, and the master makes the
result of them (`distributed.plan`).

How it works. The run has the whole workflow. Its parts render their graphs as ordinary runs, and save into a
directory of this server. When all have ended, pictures of one size become one animated PNG for each
collector, without decoding them, and the run continues on the master with these files as inputs. Everything
before that can be repeated after a crash: the files are written again from those of the parts.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comfyui_workflow.comfyui.prompt_lookup import derived_prompt_id
from comfyui_workflow.distributed.apng import Png, groups, read_png, write_animation
from comfyui_workflow.distributed.flac import read_flac
from comfyui_workflow.distributed.gather import gather_graph, gather_notices
from comfyui_workflow.distributed.model import Collected, Part, audio_file, image_file
from comfyui_workflow.errors import StoreError
from comfyui_workflow.execution.outputs import part_of
from comfyui_workflow.files.atomic_placement import place_atomically, safe_relative_path
from comfyui_workflow.files.atomic_write import make_private_directory
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.runs.events import Event, NoticeAdded, PartsGathered
from comfyui_workflow.runs.image_conversion import ImageConversion
from comfyui_workflow.runs.model import OutputFile, Run, RunRequest, RunStatus
from comfyui_workflow.runs.notification import WebhookOrder
from comfyui_workflow.runs.parts import CollectOrder, Partial, PartsOrder
from comfyui_workflow.runs.target import InstanceId
from comfyui_workflow.services.part_requests import plan_of
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import Workflow

log = logging.getLogger(__name__)

FOLDER = "distributed"
"""Directory of collected files below the input directory of the master."""


@dataclass(frozen=True, kw_only=True)
class DistributedOrder:
    """A workflow, and the instances that take part in it."""

    graph: Graph
    master: Instance
    workers: tuple[Instance, ...]
    """In the order of their seeds."""
    output_dir: str
    delegate_master: bool = False
    partial: Partial = Partial.MOVE
    installed: frozenset[str] = frozenset()
    """Node classes that every participant has."""
    editor_file: Mapping[str, Any] | None = None
    """The workflow as the editor has it. ComfyUI writes it into the pictures."""
    workflow_name: str = "distributed"
    convert: ImageConversion | None = None
    priority: int = 0
    webhook: WebhookOrder | None = None


@dataclass(frozen=True, kw_only=True)
class DistributedRun:
    run: Run
    prompt_id: str
    """The id that the prompt on the master will have (ComfyUI before 0.3.45 chooses its own)."""
    worker_count: int
    """Number of workers that render a part."""
    notices: tuple[str, ...] = field(default=())


class DistributedService:
    """Thread-safe. No method waits for an instance."""

    def __init__(self, service: RunService, store: RunStore, root: Path, server: Callable[[], Any]) -> None:
        """`root`: directory for the files of parts. `server` returns the name of this server, a UUID."""
        self._service = service
        self._store = store
        self._root = root
        self._server = server

    def submit(self, order: DistributedOrder, idempotency_key: str | None = None) -> DistributedRun:
        """Saves and starts a run and its parts. They are on disk before this returns.

        Raises: InvalidRequest if the workflow cannot be divided; StoreError."""
        collects = CollectOrder(
            master=order.master.id,
            participants=(order.master.id, *(each.id for each in order.workers)),
            delegate_master=order.delegate_master,
            installed=tuple(sorted(order.installed)),
            directory=str(self._root),
        )
        plan = plan_of(order.graph, collects)
        rendering = tuple(part.participant_id for part in plan.parts)
        parts = PartsOrder(count=len(rendering), partial=order.partial, among=rendering, collects=collects)
        request = _request(order, plan.gather if not rendering else order.graph)
        run = self._service.submit(replace(request, parts=parts) if rendering else request, idempotency_key)
        for notice in plan.notices:
            log.info("%s: %s", run.run_id, notice)
            self._service.add_notice(run.run_id, notice)
        return DistributedRun(
            run=run,
            prompt_id=run.prompt_id or derived_prompt_id(self._server(), f"{run.run_id}/1"),
            worker_count=sum(each != order.master.id for each in rendering),
            notices=plan.notices,
        )

    # Gathering, for services.parts

    def gathered(self, run: Run, parts: Sequence[Run]) -> tuple[Event, ...]:
        order = run.request.parts.collects if run.request.parts is not None else None
        if order is None:
            return ()
        plan = plan_of(run.request.workflow.graph, order)
        directory = Path(order.directory, run.run_id)
        by_number = {part.request.part.number: part for part in parts if part.request.part is not None}
        done = [(plan.parts[number], by_number[number]) for number in sorted(by_number)]
        try:
            files = _Files(directory, run.run_id)
            collected = {each: files.collected(each, done) for each in plan.collectors}
            graph = gather_graph(plan, collected)
            outputs = tuple(_own_outputs(run, done))
            files.flush()
        except OSError as error:
            raise StoreError(f"The pictures of the parts cannot be put together: {error.strerror}") from error
        notices = (NoticeAdded(message=each) for each in gather_notices(plan, collected))
        written = tuple(str(path) for path in files.written)
        return (*notices, PartsGathered(graph=graph, files=written, outputs=outputs))

    def forget(self, run: Run) -> None:
        shutil.rmtree(self._root / run.run_id, ignore_errors=True)

    def clean_up(self) -> None:
        """Removes the files of runs that have ended and cannot be retried. Called at start."""
        for path in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            run = self._store.get(path.name)
            if run is None or (run.is_finished and run.status is not RunStatus.FAILED):
                shutil.rmtree(path, ignore_errors=True)


class _Files:
    """Writes the files that the master loads."""

    def __init__(self, directory: Path, run_id: str) -> None:
        self._directory = directory / FOLDER
        self._run_id = run_id
        self.written: list[Path] = []

    def collected(self, collector: str, done: Sequence[tuple[Part, Run]]) -> Collected:
        """Raises: CollectedFileDamaged, OSError."""
        pictures, sounds = list[Png](), list[Path]()
        for planned, part in done:
            savers = planned.savers.get(collector)
            if savers is not None:
                pictures += [read_png(path) for path in _paths_of(part, savers.images)]
                sounds += _paths_of(part, savers.audio)
        return Collected(
            images=tuple(image_file(self._write(group), group) for group in groups(pictures)),
            audio=tuple(audio_file(self._copy(path), read_flac(path)) for path in sounds),
        )

    def flush(self) -> None:
        flush_to_disk([*self.written, *({self._directory} if self.written else ())])

    def _write(self, group: Sequence[Png]) -> str:
        path = self._next(".png")
        with path.open("wb") as file:
            write_animation(group, file)
        return self._name(path)

    def _copy(self, sound: Path) -> str:
        path = self._next(sound.suffix)
        shutil.copyfile(sound, path)
        return self._name(path)

    def _next(self, suffix: str) -> Path:
        make_private_directory(self._directory)
        path = self._directory / f"{self._run_id}_{len(self.written)}{suffix}"
        self.written.append(path)
        return path

    def _name(self, path: Path) -> str:
        return f"{FOLDER}/{path.name}"


def _paths_of(part: Run, saver: str | None) -> list[Path]:
    return [
        Path(output.local_path)
        for output in part.outputs
        if saver is not None and output.node_id == saver and output.local_path is not None
    ]


def _own_outputs(run: Run, done: Sequence[tuple[Part, Run]]) -> Iterator[OutputFile]:
    """Yields the outputs of parts that no collector collects, placed in the output directory of the run."""
    for planned, part in done:
        savers = {node for each in planned.savers.values() for node in (each.images, each.audio)}
        number = part.request.part.number if part.request.part is not None else 0
        for output in part.outputs:
            if output.node_id not in savers and output.local_path is not None:
                yield replace(output, local_path=str(_placed(run, output)), part=number)


def _placed(run: Run, output: OutputFile) -> Path:
    """Copies the file into the output directory of the run. Raises: OSError."""
    relative = safe_relative_path(output) or Path(output.filename).name
    copy = part_of(run, output)
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(output.local_path or "", copy)
        return place_atomically(copy, Path(run.request.output_dir) / relative)
    finally:
        copy.unlink(missing_ok=True)


def _request(order: DistributedOrder, graph: Graph) -> RunRequest:
    master = order.master
    return RunRequest(
        target=InstanceId(text=master.name, instance_id=master.id),
        workflow=Workflow(graph=graph, editor_file=order.editor_file),
        workflow_name=order.workflow_name,
        output_dir=order.output_dir,
        comfyui_port=master.comfyui_port,
        comfyui_input_dir=master.comfyui_input_dir,
        comfyui_output_dir=master.comfyui_output_dir,
        convert=order.convert,
        priority=order.priority,
        webhook=order.webhook,
    )
