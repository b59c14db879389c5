"""Error messages of failed prompts for the native API: what ComfyUI reported, and for which node."""

from comfyui_workflow.comfyui.history import HistoryEntry

MAX_MESSAGE_CHARS = 10_000
_EDITOR_FILE = "extra_pnginfo"
"""ComfyUI's name of the hidden input that contains the file of the editor."""


WITHOUT_EDITOR_FILE = (
    "This node reads the file of the editor, and a workflow in API format has none: give the workflow as the "
    "editor saves it (Save, not Export API)"
)


def failure_sentence(entry: HistoryEntry, node_type: str | None, *, has_editor_file: bool = True) -> str:
    """`has_editor_file`: the prompt contains the workflow in the format of the editor."""
    message = "Out of memory" if is_out_of_memory(entry) else comfyui_said(entry)
    where = f" (node {entry.failed_node_id}, {node_type})" if node_type else ""
    needs_file = not has_editor_file and _EDITOR_FILE in entry.failed_lines
    advice = f". {WITHOUT_EDITOR_FILE}" if needs_file else ""
    return f"Node execution failed: {message}{where}{advice}"


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
