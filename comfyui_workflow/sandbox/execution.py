"""Execution of one prompt: runs its nodes one by one, and sends events to the client in ComfyUI's order."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.faults import FaultBoard, OutOfMemory
from comfyui_workflow.sandbox.links import Graph, is_link
from comfyui_workflow.sandbox.node import (
    Interrupted,
    NodeResult,
    SandboxNode,
)
from comfyui_workflow.sandbox.progress import ProgressBoard
from comfyui_workflow.sandbox.prompt_queue import QueueItem
from comfyui_workflow.sandbox.result_cache import CachedResult, ResultCache
from comfyui_workflow.sandbox.schedule import DependencyCycle, Schedule
from comfyui_workflow.sandbox.validation import type_name
from comfyui_workflow.sandbox.websockets import SocketHub

_PREVIEW_METHODS = ("none", "auto", "latent2rgb", "taesd")
_OUT_OF_MEMORY_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


class Abandoned(BaseException):
    """The server stops while a prompt runs: the prompt must have no further visible effect."""


@dataclass(kw_only=True)
class Signals:
    """Signals from other threads to the running prompt."""

    interrupt: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def pause(self, duration_s: float) -> None:
        """Waits for a time. Raises: Abandoned, as soon as the server stops."""
        if self.stopping.wait(duration_s) if duration_s else self.stopping.is_set():
            raise Abandoned

    def raise_if_interrupted(self) -> None:
        if self.interrupt.is_set():
            self.interrupt.clear()
            raise Interrupted


@dataclass(frozen=True, kw_only=True)
class SharedResources:
    """Resources that all prompts of one server share."""

    catalog: Catalog
    hub: SocketHub
    faults: FaultBoard
    cache: ResultCache
    signals: Signals
    has_previews: bool
    queue_again: Callable[[QueueItem], None]

    def shows_previews(self, extra_data: dict[str, Any]) -> bool:
        """True if the prompt shows previews: its own `preview_method` goes before that of the server."""
        method = extra_data.get("preview_method")
        if not self.faults.version.previews_one_prompt or method not in _PREVIEW_METHODS:
            return self.has_previews
        return bool(method != "none")


class PromptExecution:
    """Execution of one prompt on the worker thread. `run` handles every `Exception` of a node."""

    def __init__(
        self, item: QueueItem, resources: SharedResources, *, on_node: Callable[[str | None], None]
    ) -> None:
        _, self.prompt_id, self._graph, extra_data, self._outputs_to_execute = item
        self._item = item
        self.client_id: str | None = extra_data.get("client_id")
        self.outputs: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}
        self.executed: list[str] = []
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._extra_pnginfo = extra_data.get("extra_pnginfo")
        self._has_previews = resources.shows_previews(extra_data)
        self._resources = resources
        self._on_node = on_node
        self._progress = ProgressBoard(
            prompt_id=self.prompt_id, client_id=self.client_id, hub=resources.hub, faults=resources.faults
        )

    @property
    def has_failed(self) -> bool:
        """True if a node failed or was interrupted. As in ComfyUI, a cycle at run time counts as success."""
        return self._ends_with("execution_error", "execution_interrupted") and not self._is_cycle()

    @property
    def ending(self) -> str:
        """Status for the execution log: "success", "error" or "interrupted"."""
        if self._ends_with("execution_interrupted"):
            return "interrupted"
        return "error" if self._ends_with("execution_error") else "success"

    def run(self, *, kills_worker: bool = False) -> None:
        """Executes all nodes that the outputs need.

        Raises: NodeNotFound, for a dangling link that passed validation; Abandoned; any exception of a node
        that is not an `Exception`. Each of them ends ComfyUI's worker thread; `kills_worker` simulates such a
        cause.
        """
        self._resources.signals.interrupt.clear()
        self._record_and_send("execution_start", {"prompt_id": self.prompt_id})
        self._resources.cache.prepare(self._graph)
        cached = [node_id for node_id in self._graph if self._resources.cache.get(node_id)]
        self._record_and_send("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        if kills_worker:
            raise SystemExit
        schedule = Schedule(
            self._graph,
            catalog=self._resources.catalog,
            is_cached=lambda node_id: self._resources.cache.get(node_id) is not None,
        )
        for output in self._outputs_to_execute:
            schedule.add(output)
        if self._run_nodes(schedule):
            self._record_and_send("execution_success", {"prompt_id": self.prompt_id})

    def _run_nodes(self, schedule: Schedule) -> bool:
        try:
            while (node_id := schedule.next()) is not None:
                if not self._run_node(node_id):
                    return False
                schedule.done(node_id)
        except DependencyCycle as cycle:
            self._report_error(cycle.node_id, str(cycle), "graph.DependencyCycleError")
            return False
        return True

    def _run_node(self, node_id: str) -> bool:
        if (cached := self._resources.cache.get(node_id)) is not None:
            self._send_cached(node_id, cached)
            return True
        self._progress.start(node_id)
        self._on_node(node_id)
        self._send("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id})
        inputs = self._inputs_of(node_id)
        try:
            result = self._execute(node_id, inputs)
        except Interrupted:
            self._report_interrupt(node_id)
            return False
        except Exception as error:  # noqa: BLE001 - a node may raise anything; it becomes the prompt's error
            self._report_exception(node_id, error, inputs)
            return False
        self._store_result(node_id, result)
        self._progress.finish(node_id)
        self.executed.append(node_id)
        return True

    def _send_cached(self, node_id: str, cached: CachedResult) -> None:
        self._send_executed(node_id, cached.ui["output"] if cached.ui else None)
        if cached.ui:
            self.outputs[node_id], self.meta[node_id] = cached.ui["output"], cached.ui["meta"]
        self._progress.finish(node_id)

    def _inputs_of(self, node_id: str) -> dict[str, Any]:
        """Returns the arguments for `execute`. As in ComfyUI, links of undeclared inputs are passed too."""
        node = self._graph[node_id]
        schema = self._resources.catalog.live_inputs(node).all
        values: dict[str, Any] = {}
        for name, value in node["inputs"].items():
            if is_link(value):
                cached = self._resources.cache.get(value[0])
                values[name] = cached.values[value[1]] if cached else None
            elif name in schema:
                values[name] = value
        return values

    def _execute(self, node_id: str, inputs: dict[str, Any]) -> NodeResult:
        resources, node_class = self._resources, self._class_of(node_id)
        resources.signals.pause(resources.faults.now.step_delay_s)
        resources.signals.raise_if_interrupted()
        resources.faults.raise_for(self._graph[node_id]["class_type"])
        context = _Context(
            node_id,
            self._graph,
            self._extra_pnginfo,
            resources,
            self._progress,
            has_previews=self._has_previews,
            queue_again=lambda: resources.queue_again(self._item),
        )
        values = {name: [value] for name, value in inputs.items()} if node_class.INPUT_IS_LIST else inputs
        live = resources.catalog.live_inputs(self._graph[node_id])
        result = node_class().execute(context, **live.nested(values))
        resources.signals.pause(0)
        return result

    def _store_result(self, node_id: str, result: NodeResult) -> None:
        ui = None
        if shown := _merged(result.ui or {}):
            meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            ui = {"output": shown, "meta": meta}
            self.outputs[node_id], self.meta[node_id] = shown, meta
            self._send_executed(node_id, shown)
        self._resources.cache.put(node_id, CachedResult(values=result.result, ui=ui))

    def _send_executed(self, node_id: str, output: dict[str, Any] | None) -> None:
        data = {"node": node_id, "display_node": node_id, "output": output, "prompt_id": self.prompt_id}
        self._send("executed", data)

    def _report_interrupt(self, node_id: str) -> None:
        data = {
            "prompt_id": self.prompt_id,
            "node_id": node_id,
            "node_type": self._graph[node_id]["class_type"],
            "executed": self.executed.copy(),
        }
        self._record_and_send("execution_interrupted", data, is_for_all=self.client_id is None)

    def _report_exception(self, node_id: str, error: Exception, inputs: dict[str, Any]) -> None:
        tips = _OUT_OF_MEMORY_TIPS if isinstance(error, OutOfMemory) else ""
        self._report_error(
            node_id,
            f"{error}\n{tips}",
            type_name(error),
            trace=traceback.format_tb(error.__traceback__),
            inputs={name: [_printable(value)] for name, value in inputs.items()},
        )

    def _report_error(
        self,
        node_id: str,
        message: str,
        error_type: str,
        *,
        trace: list[str] | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> None:
        data = {
            "prompt_id": self.prompt_id,
            "node_id": node_id,
            "node_type": self._graph[node_id]["class_type"],
            "executed": self.executed.copy(),
            "exception_message": message,
            "exception_type": error_type,
            "traceback": trace or [],
            "current_inputs": [] if inputs is None else inputs,
            "current_outputs": list(self._graph),
        }
        self._record_and_send("execution_error", data)

    def _record_and_send(self, event: str, data: dict[str, Any], *, is_for_all: bool = False) -> None:
        """Sends an event that is also stored in the history."""
        stamped = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, stamped))
        if is_for_all:
            self._resources.hub.send_soon(event, stamped)
        else:
            self._send(event, stamped)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        if self.client_id is not None:
            self._resources.hub.send_soon(event, data, self.client_id)

    def _class_of(self, node_id: str) -> type[SandboxNode]:
        return self._resources.catalog[self._graph[node_id]["class_type"]]

    def _ends_with(self, *events: str) -> bool:
        return bool(self.messages) and self.messages[-1][0] in events

    def _is_cycle(self) -> bool:
        return self.messages[-1][1].get("exception_type") == "graph.DependencyCycleError"


class _Context:
    """Implementation of `NodeContext` for one node."""

    def __init__(
        self,
        node_id: str,
        graph: Graph,
        extra_pnginfo: dict[str, Any] | None,
        resources: SharedResources,
        progress: ProgressBoard,
        *,
        has_previews: bool,
        queue_again: Callable[[], None],
    ) -> None:
        self.queue_again = queue_again
        self.node_id = node_id
        self.prompt = graph
        self.extra_pnginfo = extra_pnginfo
        self._resources = resources
        self._progress = progress
        self._has_previews = has_previews

    @property
    def input_dir(self) -> Path:
        return self._resources.catalog.folders.input_dir

    @property
    def output_dir(self) -> Path:
        return self._resources.catalog.folders.output_dir

    @property
    def temp_dir(self) -> Path:
        return self._resources.catalog.folders.temp_dir

    def send_picture(self, value: int, maximum: int, picture: Image.Image) -> None:
        self._resources.signals.raise_if_interrupted()
        self._progress.step(self.node_id, value, maximum, picture, is_preview=False)

    def step(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        signals = self._resources.signals
        signals.pause(self._resources.faults.now.step_delay_s)
        signals.raise_if_interrupted()
        shown = preview if self._has_previews else None
        self._progress.step(self.node_id, value, maximum, shown)


def _merged(ui: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Joins the `ui` of the executions of a node, as ComfyUI does: a text becomes the list of its letters,
    and an object the list of its keys."""
    return {key: [*values] for key, values in ui.items()}


def _printable(value: object) -> object:
    """Converts a value for `current_inputs`: simple values are kept, arrays and others become text."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
