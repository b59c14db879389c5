"""Reads the results that a node shows (its `ui`): files, texts, and strings that may name files.

ComfyUI joins the `ui` of several executions of a node: every value becomes a list, a text becomes the list of
its letters, and an object becomes the list of its keys, whose values are lost.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.runs.model import FileType, OutputFile

_FOLDERS = ("output", "temp", "input")
_KEYS_OF_A_FILE = frozenset(
    ("filename", "subfolder", "type", "format", "frame_rate", "fullpath", "workflow", "source")
)
_WIDGET_STATE = frozenset(("dims", "histogram", "input_bboxes", "compositor_inputs", "compositor_bboxes"))
"""What ComfyUI's own nodes show to their widgets in the editor, not to a person."""
_DEEPEST = 6
_LONGEST_ID = 200
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")
_LONGEST_PATH = 1024
_PATH = re.compile(r"[^\x00-\x1f]*[^\x00-\x1f./\\ ]\.[A-Za-z0-9]{1,12}( \[(output|temp|input)\])?")
"""One line that ends with the extension of a file, perhaps with ComfyUI's name of the directory."""


@dataclass(frozen=True, kw_only=True)
class ShownPath:
    """A text that looks like the path of a file. Only the instance knows if that file exists."""

    node_id: str
    text: str
    is_model: bool = False
    """True for what the 3D viewer of the editor opens: a result, however old its file is. ComfyUI's 3D nodes
    copy a model together with its modification time."""


@dataclass(frozen=True, kw_only=True)
class ShownResults:
    """The results of one node."""

    files: tuple[OutputFile, ...] = ()
    text: OutputFile | None = None
    """All texts of the node as one file; also those that look like paths, unless the node shows files."""
    paths: tuple[ShownPath, ...] = ()


def read_shown(node_id: str, shown: object) -> ShownResults:
    """Reads the `ui` of one node: files under any key (`images`, `gifs`, `audio`, `3d`, …), and texts under
    any key except the state of widgets. Numbers count as texts if the node shows nothing but numbers."""
    listed_by_key = {key: listed for key, listed in as_object(shown).items() if key not in _WIDGET_STATE}
    values = [value for listed in listed_by_key.values() for value in _values(listed)]
    files = tuple(_file(node_id, value) for value in _objects(values, _DEEPEST) if _is_file(value))
    texts = [value for value in values if isinstance(value, str)]
    paths = [text for text in (*texts, *_nested_texts(values, _DEEPEST)) if _is_path(text)]
    if files:
        texts = [text for text in texts if text and not _is_path(text)]
    elif all(map(_is_number, values)):
        texts = list(map(str, values))
    models = {text for text in as_list(as_object(shown).get("result")) if _is_model(text)}
    return ShownResults(
        files=files,
        text=text_file(node_id, "\n".join(texts)) if texts else None,
        paths=tuple(
            ShownPath(node_id=node_id, text=text, is_model=text in models) for text in dict.fromkeys(paths)
        ),
    )


def shows_widget_state(shown: object) -> bool:
    """True if a node shows something to its widget in the editor: it may have no other result."""
    return not _WIDGET_STATE.isdisjoint(as_object(shown))


def name_of_node(node_id: str) -> str:
    """Returns the id as a part of a file name, different for each id. A program that writes graphs may choose
    any text as an id."""
    name = node_id.replace(":", "_")
    safe = _NOT_IN_NAMES.sub("_", name).encode()
    if safe.decode() == name and len(safe) <= _LONGEST_ID:
        return name
    tag = hashlib.sha256(node_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{safe[:_LONGEST_ID].decode(errors='ignore')}_{tag}"


def text_file(node_id: str, text: str) -> OutputFile:
    return OutputFile(
        filename=f"text_{name_of_node(node_id)}.txt",
        folder="text",
        node_id=node_id,
        file_type=FileType.TEXT,
        text=text,
    )


def _values(listed: object) -> list[Any]:
    """Returns the values under one key of a `ui`: a text that was split into its letters is joined, and the
    keys of a lost object are left out."""
    if not isinstance(listed, list):
        return [] if listed is None else [listed]
    texts = [value for value in listed if isinstance(value, str)]
    if len(texts) > 1 and len(texts) == len(listed) and all(len(text) == 1 for text in texts):
        return ["".join(texts)]
    if "filename" in texts and _KEYS_OF_A_FILE.issuperset(texts):
        return [value for value in listed if not isinstance(value, str)]
    return listed


def _objects(values: list[Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """Yields the objects in the values. Objects inside a file are not searched: they describe it."""
    for value in values:
        if isinstance(value, dict):
            yield value
            if depth and not _is_file(value):
                yield from _objects(list(value.values()), depth - 1)
        elif isinstance(value, list) and depth:
            yield from _objects(value, depth - 1)


def _nested_texts(values: list[Any], depth: int) -> Iterator[str]:
    """Yields the texts inside of objects and inner lists."""
    for value in values:
        if isinstance(value, dict) and not _is_file(value):
            inner = list(value.values())
        elif isinstance(value, list):
            inner = value
        else:
            continue
        yield from (text for text in inner if isinstance(text, str))
        if depth:
            yield from _nested_texts(inner, depth - 1)


def _is_file(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("filename"), str) and bool(value["filename"])


def _is_path(text: str) -> bool:
    return len(text) <= _LONGEST_PATH and _PATH.fullmatch(text) is not None


def _is_model(value: object) -> bool:
    return isinstance(value, str) and file_type(value) is FileType.MODEL_3D


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _file(node_id: str, value: Mapping[str, Any]) -> OutputFile:
    filename, folder = str(value["filename"]), as_text(value.get("type"))
    return OutputFile(
        filename=filename,
        subfolder=as_text(value.get("subfolder")) or "",
        folder=folder if folder in _FOLDERS else "output",
        node_id=node_id,
        file_type=file_type(filename),
    )


_TYPES = {
    FileType.IMAGE: "png jpg jpeg webp gif bmp tif tiff svg avif exr hdr apng",
    FileType.VIDEO: "mp4 webm mkv mov avi m4v",
    FileType.AUDIO: "flac mp3 wav ogg opus m4a aac",
    FileType.MODEL_3D: "glb gltf obj ply stl fbx usdz spz splat ksplat",
    FileType.TEXT: "txt json csv md srt",
}
_BY_ENDING = {ending: kind for kind, endings in _TYPES.items() for ending in endings.split()}


def file_type(filename: str) -> FileType:
    return _BY_ENDING.get(PurePosixPath(filename).suffix.lower().lstrip("."), FileType.OTHER)
