"""Error messages of failed prompts for the native API: what ComfyUI reported, and for which node."""

from comfyui_workflow.comfyui.history import HistoryEntry

MAX_MESSAGE_CHARS = 10_000


def failure_sentence(entry: HistoryEntry, node_type: str | None) -> str:
    message = "Out of memory" if is_out_of_memory(entry) else comfyui_said(entry)
    where = f" (node {entry.failed_node_id}, {node_type})" if node_type else ""
    return f"Node execution failed: {message}{where}"


def comfyui_said(entry: HistoryEntry) -> str:
    """Returns ComfyUI's message in one line of at most MAX_MESSAGE_CHARS characters, so that a record and a
    list can hold it."""
    message = " ".join((entry.error_message or "ComfyUI does not say why")[: 2 * MAX_MESSAGE_CHARS].split())
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"


def is_out_of_memory(entry: HistoryEntry) -> bool:
    """Checks the message as well as the error type: some out-of-memory errors have other types."""
    text = f"{entry.error_type} {entry.error_message}"
    signs = ("OutOfMemoryError", "out of memory", "Allocation on device", "MemoryError")
    return any(sign in text for sign in signs)
