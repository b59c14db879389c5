"""Shared state of the routes: directories, node classes, and the current engine and sockets."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.engine import Engine
from comfyui_workflow.sandbox.execution_log import ExecutionLog
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.node import Folders, NodeClasses
from comfyui_workflow.sandbox.websockets import SocketHub

_LONGEST_NODE_S = 5.0


class Backend:
    """State of one sandbox ComfyUI. Use it on the event loop only. Call `begin` first, and again after each
    `end` to simulate a restart."""

    def __init__(
        self,
        *,
        folders: Folders,
        node_classes: NodeClasses,
        execution_log: Path | None,
        preview_method: str,
    ) -> None:
        self.folders = folders
        self.preview_method = preview_method
        self.faults = FaultBoard()
        self.catalog = Catalog(node_classes=node_classes, folders=folders, faults=self.faults)
        self.address = ("127.0.0.1", 0)
        self._execution_log = ExecutionLog(execution_log)
        self.hub = SocketHub(faults=self.faults)
        self.engine = self._new_engine()
        self._delayed: set[asyncio.Task[None]] = set()

    def run_later(self, after_s: float, work: Callable[[], Awaitable[object]]) -> None:
        """Runs `work` on this event loop after a delay, unless `reset` is called before."""

        async def do() -> None:
            await asyncio.sleep(after_s)
            await work()

        task = asyncio.get_running_loop().create_task(do())
        self._delayed.add(task)
        task.add_done_callback(self._delayed.discard)

    def begin(self) -> None:
        """Starts with an empty queue, an empty history and an empty temp directory."""
        for directory in (self.folders.input_dir, self.folders.output_dir, self.folders.temp_dir):
            directory.mkdir(parents=True, exist_ok=True)
        _empty(self.folders.temp_dir)
        self.hub = SocketHub(faults=self.faults)
        self.hub.start()
        self.engine = self._new_engine()
        self.engine.start()

    def end(self) -> None:
        """Stops as if the process were killed. The worker thread ends by itself."""
        self.engine.abandon()
        self.hub.stop()

    async def reset(self) -> None:
        """Resets the sandbox for the next test: clears queue, history, results and faults, and deletes all
        files. Websockets stay open."""
        for task in self._delayed:
            task.cancel()
        self.engine.abandon()
        self.faults.clear()
        await asyncio.to_thread(self.engine.wait_until_over, timeout_s=_LONGEST_NODE_S)
        for directory in (self.folders.input_dir, self.folders.output_dir, self.folders.temp_dir):
            _empty(directory)
        self.engine = self._new_engine()
        self.engine.start()

    def _new_engine(self) -> Engine:
        return Engine(
            catalog=self.catalog,
            hub=self.hub,
            faults=self.faults,
            execution_log=self._execution_log,
            has_previews=self.preview_method != "none",
        )


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
