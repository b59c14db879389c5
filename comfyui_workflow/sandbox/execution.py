"""Runs the nodes of a graph one after the other, and tells the client what happens, in ComfyUI's order."""

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.sandbox.faults import FaultBoard, OutOfMemory
from comfyui_workflow.sandbox.links import Graph, is_link, schema_inputs
from comfyui_workflow.sandbox.node import (
    Folders,
    Interrupted,
    NodeClasses,
    NodeResult,
    SandboxNode,
)
from comfyui_workflow.sandbox.progress import ProgressBoard
from comfyui_workflow.sandbox.prompt_queue import QueueItem
from comfyui_workflow.sandbox.result_cache import CachedResult, ResultCache
from comfyui_workflow.sandbox.schedule import DependencyCycle, Schedule
from comfyui_workflow.sandbox.validation import type_name
from comfyui_workflow.sandbox.websockets import SocketHub

_OUT_OF_MEMORY_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


class Abandoned(BaseException):
    """The server goes down under the running prompt: nothing more of it must be seen."""


@dataclass(kw_only=True)
class Signals:
    """How other threads reach into the running prompt."""

    interrupt: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def pause(self, duration_s: float) -> None:
        """Wait so long, or until the server goes down. Raises: Abandoned."""
        if self.stopping.wait(duration_s) if duration_s else self.stopping.is_set():
            raise Abandoned

    def raise_if_interrupted(self) -> None:
        if self.interrupt.is_set():
            self.interrupt.clear()
            raise Interrupted


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What every prompt of one server shares."""

    folders: Folders
    node_classes: NodeClasses
    hub: SocketHub
    faults: FaultBoard
    cache: ResultCache
    signals: Signals
    has_previews: bool


class PromptExecution:
    """One prompt on the worker thread. `run` never raises for what a node does, but see there."""

    def __init__(self, item: QueueItem, workshop: Workshop, *, on_node: Callable[[str | None], None]) -> None:
        _, self.prompt_id, self._graph, extra_data, self._outputs_to_execute = item
        self.client_id: str | None = extra_data.get("client_id")
        self.outputs: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}
        self.executed: list[str] = []
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._extra_pnginfo = extra_data.get("extra_pnginfo")
        self._workshop = workshop
        self._on_node = on_node
        self._progress = ProgressBoard(
            prompt_id=self.prompt_id, client_id=self.client_id, hub=workshop.hub, faults=workshop.faults
        )

    @property
    def has_failed(self) -> bool:
        """By a node, that is: a cycle found at run time counts as success, oddly."""
        return self._ends_with("execution_error", "execution_interrupted") and not self._is_cycle()

    @property
    def ending(self) -> str:
        """How it went, in the words of the execution log."""
        if self._ends_with("execution_interrupted"):
            return "interrupted"
        return "error" if self._ends_with("execution_error") else "success"

    def run(self, *, dies: bool = False) -> None:
        """Run all that the outputs need.

        Raises: NodeNotFound, for a link that leads nowhere and passed validation; Abandoned; what a node
        raises that is no Exception. Each ends ComfyUI's worker thread; `dies` stands for any such cause.
        """
        self._workshop.signals.interrupt.clear()
        self._tell("execution_start", {"prompt_id": self.prompt_id})
        self._workshop.cache.turn_to(self._graph)
        cached = [node_id for node_id in self._graph if self._workshop.cache.get(node_id)]
        self._tell("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        if dies:
            raise SystemExit
        schedule = Schedule(
            self._graph,
            node_classes=self._workshop.node_classes,
            is_cached=lambda node_id: self._workshop.cache.get(node_id) is not None,
        )
        for output in self._outputs_to_execute:
            schedule.add(output)
        if self._run_nodes(schedule):
            self._tell("execution_success", {"prompt_id": self.prompt_id})

    def _run_nodes(self, schedule: Schedule) -> bool:
        try:
            while (node_id := schedule.next()) is not None:
                if not self._run_node(node_id):
                    return False
                schedule.done(node_id)
        except DependencyCycle as cycle:
            self._tell_error(cycle.node_id, str(cycle), "graph.DependencyCycleError")
            return False
        return True

    def _run_node(self, node_id: str) -> bool:
        if (cached := self._workshop.cache.get(node_id)) is not None:
            self._show_cached(node_id, cached)
            return True
        self._progress.start(node_id)
        self._on_node(node_id)
        self._send("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id})
        inputs = self._inputs_of(node_id)
        try:
            result = self._execute(node_id, inputs)
        except Interrupted:
            self._tell_interrupted(node_id)
            return False
        except Exception as error:  # noqa: BLE001 - a node may raise anything; it becomes the prompt's error
            self._tell_exception(node_id, error, inputs)
            return False
        self._keep(node_id, result)
        self._progress.finish(node_id)
        self.executed.append(node_id)
        return True

    def _show_cached(self, node_id: str, cached: CachedResult) -> None:
        self._show(node_id, cached.ui["output"] if cached.ui else None)
        if cached.ui:
            self.outputs[node_id], self.meta[node_id] = cached.ui["output"], cached.ui["meta"]
        self._progress.finish(node_id)

    def _inputs_of(self, node_id: str) -> dict[str, Any]:
        """The values for `execute`; as in ComfyUI a link counts even if the schema has no such input."""
        node = self._graph[node_id]
        schema = schema_inputs(self._class_of(node_id).input_types(self._workshop.folders))
        values: dict[str, Any] = {}
        for name, value in node["inputs"].items():
            if is_link(value):
                cached = self._workshop.cache.get(value[0])
                values[name] = cached.values[value[1]] if cached else None
            elif name in schema:
                values[name] = value
        return values

    def _execute(self, node_id: str, inputs: dict[str, Any]) -> NodeResult:
        workshop, node_class = self._workshop, self._class_of(node_id)
        workshop.signals.pause(workshop.faults.now.step_delay_s)
        workshop.signals.raise_if_interrupted()
        workshop.faults.raise_for(self._graph[node_id]["class_type"])
        context = _Context(node_id, self._graph, self._extra_pnginfo, workshop, self._progress)
        given = {name: [value] for name, value in inputs.items()} if node_class.INPUT_IS_LIST else inputs
        result = node_class().execute(context, **given)
        workshop.signals.pause(0)
        return result

    def _keep(self, node_id: str, result: NodeResult) -> None:
        ui = None
        if result.ui:
            meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            ui = {"output": result.ui, "meta": meta}
            self.outputs[node_id], self.meta[node_id] = result.ui, meta
            self._show(node_id, result.ui)
        self._workshop.cache.put(node_id, CachedResult(values=result.result, ui=ui))

    def _show(self, node_id: str, output: dict[str, Any] | None) -> None:
        data = {"node": node_id, "display_node": node_id, "output": output, "prompt_id": self.prompt_id}
        self._send("executed", data)

    def _tell_interrupted(self, node_id: str) -> None:
        data = {
            "prompt_id": self.prompt_id,
            "node_id": node_id,
            "node_type": self._graph[node_id]["class_type"],
            "executed": self.executed.copy(),
        }
        self._tell("execution_interrupted", data, is_for_all=self.client_id is None)

    def _tell_exception(self, node_id: str, error: Exception, inputs: dict[str, Any]) -> None:
        tips = _OUT_OF_MEMORY_TIPS if isinstance(error, OutOfMemory) else ""
        self._tell_error(
            node_id,
            f"{error}\n{tips}",
            type_name(error),
            trace=traceback.format_tb(error.__traceback__),
            inputs={name: [_printable(value)] for name, value in inputs.items()},
        )

    def _tell_error(
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
        self._tell("execution_error", data)

    def _tell(self, event: str, data: dict[str, Any], *, is_for_all: bool = False) -> None:
        """An event that history keeps too."""
        stamped = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, stamped))
        if is_for_all:
            self._workshop.hub.send_soon(event, stamped)
        else:
            self._send(event, stamped)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        if self.client_id is not None:
            self._workshop.hub.send_soon(event, data, self.client_id)

    def _class_of(self, node_id: str) -> type[SandboxNode]:
        return self._workshop.node_classes[self._graph[node_id]["class_type"]]

    def _ends_with(self, *events: str) -> bool:
        return bool(self.messages) and self.messages[-1][0] in events

    def _is_cycle(self) -> bool:
        return self.messages[-1][1].get("exception_type") == "graph.DependencyCycleError"


class _Context:
    """What one node sees of its prompt: see NodeContext."""

    def __init__(
        self,
        node_id: str,
        graph: Graph,
        extra_pnginfo: dict[str, Any] | None,
        workshop: Workshop,
        progress: ProgressBoard,
    ) -> None:
        self.node_id = node_id
        self.prompt = graph
        self.extra_pnginfo = extra_pnginfo
        self._workshop = workshop
        self._progress = progress

    @property
    def input_dir(self) -> Path:
        return self._workshop.folders.input_dir

    @property
    def output_dir(self) -> Path:
        return self._workshop.folders.output_dir

    @property
    def temp_dir(self) -> Path:
        return self._workshop.folders.temp_dir

    def step(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        signals = self._workshop.signals
        signals.pause(self._workshop.faults.now.step_delay_s)
        signals.raise_if_interrupted()
        shown = preview if self._workshop.has_previews else None
        self._progress.step(self.node_id, value, maximum, shown)


def _printable(value: object) -> object:
    """A value for `current_inputs`: plain ones as they are, arrays and the like as text."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
