"""A small ComfyUI 0.3.64: speaks its protocol, and really executes graphs, on the CPU."""

from pathlib import Path

from comfyui_workflow.sandbox.node import Folders, NodeClasses


class ComfyUIServer:
    """One sandbox ComfyUI on one port.

    `execution_log` gets a JSON line at the start and one at the end of each prompt that is executed.
    `preview_method` is "auto" (previews while nodes step) or "none". `start` and `stop` are called on the same
    event loop; a daemon thread executes the prompts. A "restart" fault comes back on the same port by itself.
    """

    def __init__(
        self,
        *,
        folders: Folders,
        node_classes: NodeClasses,
        execution_log: Path | None = None,
        preview_method: str = "auto",
    ) -> None:
        self._folders = folders

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port (0 asks for a free one)."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Cut every connection, abandon the running prompt, close the port."""
        raise NotImplementedError
