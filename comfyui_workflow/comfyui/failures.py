"""Why a prompt failed, in the words of the native API, with what ComfyUI said and where."""

from comfyui_workflow.comfyui.history import HistoryEntry

MAX_MESSAGE_CHARS = 10_000


def failure_sentence(entry: HistoryEntry, node_type: str | None) -> str:
    message = "Out of memory" if is_out_of_memory(entry) else comfyui_said(entry)
    where = f" (node {entry.failed_node_id}, {node_type})" if node_type else ""
    return f"Node execution failed: {message}{where}"


def comfyui_said(entry: HistoryEntry) -> str:
    """Its own words, in one line, of a length that a record and a list can have."""
    message = " ".join((entry.error_message or "ComfyUI does not say why")[: 2 * MAX_MESSAGE_CHARS].split())
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"


def is_out_of_memory(entry: HistoryEntry) -> bool:
    """Some forms of it come under other types, and only their text tells."""
    text = f"{entry.error_type} {entry.error_message}"
    signs = ("OutOfMemoryError", "out of memory", "Allocation on device", "MemoryError")
    return any(sign in text for sign in signs)
