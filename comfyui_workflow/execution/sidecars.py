"""Finds the texts that a node saves beside its pictures: captions for training, prompts, workflows.

How it works. ComfyUI is told of the picture only. An input of the node says that there is a text: its name
has "caption" or "json", or its value is the extension of a text (`.txt`). A file of the picture's name with
such an extension, written while the prompt ran, is this text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.comfyui.output_locations import is_outside
from comfyui_workflow.comfyui.shown_results import file_type
from comfyui_workflow.runs.model import FileType, OutputFile
from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES

MOST_PICTURES = 500
_EXTENSIONS_OF_WORDS = {"caption": ".txt", "txt": ".txt", "json": ".json", "csv": ".csv"}
_SWITCHED_OFF = (False, None, "", "none", "false", "disabled")


def sidecars(
    outputs: Sequence[OutputFile],
    node_of: Callable[[str], Mapping[str, Any]],
    written_s: Callable[[OutputFile], float | None],
) -> list[OutputFile]:
    """Returns the texts beside the first MOST_PICTURES of the files. `node_of` returns a node of the graph,
    or an empty one; `written_s` the time at which a file was written, None if it does not exist."""
    known = {output.key for output in outputs}
    found: dict[tuple[str, str, str], OutputFile] = {}
    for output in outputs[:MOST_PICTURES]:
        if output.text is None and output.folder != "temp" and not is_outside(output):
            for beside in _possible(output, node_of(output.node_id)):
                if beside.key not in known and _is_made_with(beside, written_s(beside)):
                    found[beside.key] = beside
    return list(found.values())


def _possible(output: OutputFile, node: Mapping[str, Any]) -> Iterator[OutputFile]:
    if node.get("class_type") in NUMBERING_CLASSES:  # ComfyUI's own nodes tell all their files
        return
    for extension in dict.fromkeys(_extensions(node.get("inputs") or {})):
        filename = str(PurePosixPath(output.filename).with_suffix(extension))
        if filename != output.filename:
            yield replace(output, filename=filename, file_type=FileType.TEXT)


def _extensions(inputs: Mapping[str, Any]) -> Iterator[str]:
    for name, value in inputs.items():
        if isinstance(value, str) and file_type(f"x{value}") is FileType.TEXT and value.startswith("."):
            yield value
        elif not (isinstance(value, str | bool | None) and value in _SWITCHED_OFF):
            yield from (ending for word, ending in _EXTENSIONS_OF_WORDS.items() if word in name.lower())


def _is_made_with(beside: OutputFile, written_s: float | None) -> bool:
    if written_s is None:
        return False
    return beside.is_cached or beside.made_after is None or written_s >= beside.made_after.timestamp() - 0.02
