"""Why a prompt failed, in the words of the native API, with what ComfyUI said and where."""

from comfyui_workflow.comfyui.history import HistoryEntry

LONGEST_SAID = 10_000


def failure_sentence(entry: HistoryEntry, node_type: str | None) -> str:
    said = "Out of memory" if is_out_of_memory(entry) else comfyui_said(entry)
    where = f" (node {entry.failed_node_id}, {node_type})" if node_type else ""
    return f"Node execution failed: {said}{where}"


def comfyui_said(entry: HistoryEntry) -> str:
    """Its own words, in one line, of a length that a record and a list can have."""
    said = " ".join((entry.error_message or "ComfyUI does not say why")[: 2 * LONGEST_SAID].split())
    return said if len(said) <= LONGEST_SAID else said[: LONGEST_SAID - 1] + "…"


def is_out_of_memory(entry: HistoryEntry) -> bool:
    """Some forms of it come under other types, and only their text tells."""
    text = f"{entry.error_type} {entry.error_message}"
    signs = ("OutOfMemoryError", "out of memory", "Allocation on device", "MemoryError")
    return any(sign in text for sign in signs)
