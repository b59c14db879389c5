"""The inputs of a graph that a person is likely to change: texts, seeds, sizes, steps, files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.dynamic_inputs import declared_inputs
from comfyui_workflow.workflows.graph import Graph, closure, node_title
from comfyui_workflow.workflows.model_files import is_model
from comfyui_workflow.workflows.node_definitions import SEED_NAMES, Definitions, InputDefinition
from comfyui_workflow.workflows.validation.files import folder_and_name, names_files

MOST_OPTIONS = 5000
LARGEST_EXACT = 2**53 - 1
"""JavaScript reads larger integers from JSON inexactly."""


class Kind(StrEnum):
    """Kind of an input; `key_inputs` sorts by this order."""

    TEXT = "text"
    SEED = "seed"
    SIZE = "size"
    STEPS = "steps"
    NUMBER = "number"
    CHOICE = "choice"
    FILE = "file"


class Role(StrEnum):
    """Use of a text: the input (`positive` or `negative`) that its node is linked to, directly or not."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


_TEXT_WORDS = frozenset({"text", "prompt", "caption", "lyrics", "tags", "t5xxl"})
_TEXT_NAMES = frozenset({"clip_l", "clip_g", "text_g", "text_l", "positive", "negative"})
_SIZE_WORDS = frozenset({"width", "height", "length", "frames", "megapixels", "resolution"})
_SIZE_NAMES = frozenset({"batch_size", "num_frames", "video_frames"})
_NUMBER_WORDS = frozenset(
    {
        "cfg",
        "denoise",
        "guidance",
        "strength",
        "fps",
        "rate",
        "shift",
        "scale",
        "duration",
        "seconds",
        "weight",
    }
)
_CHOICE_WORDS = frozenset({"sampler", "scheduler", "model", "ratio", "resolution", "style", "voice"})
_MEDIA = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}),
    "video": frozenset({".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v"}),
    "audio": frozenset({".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"}),
}
_MODELS_3D = frozenset(
    {".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply", ".spz", ".splat", ".ksplat", ".usdz"}
)
_UPLOADS = {
    "image_upload": "image",
    "animated_image_upload": "image",
    "video_upload": "video",
    "audio_upload": "audio",
}


@dataclass(frozen=True, kw_only=True)
class KeyInput:
    node_id: str
    class_type: str
    title: str
    input: str
    kind: Kind
    value: Any
    """A text, a number, or true or false: never a link, a list or an object."""
    role: Role | None = None
    media: str | None = None
    """Media type of a file: `image`, `video` or `audio`; None for any other file."""
    definition: InputDefinition | None = None

    @property
    def name(self) -> str:
        """Name of the input in the `inputs` of a request."""
        return f"{self.node_id}.{self.input}"

    def document(self) -> dict[str, Any]:
        described = {
            "name": self.name,
            "node_id": self.node_id,
            "class_type": self.class_type,
            "title": self.title,
            "input": self.input,
            "kind": self.kind.value,
            "value": _exact_in_json(self.value),
        }
        media = {"media": self.media} if self.kind is Kind.FILE else {}
        role = {"role": self.role and self.role.value} if self.kind is Kind.TEXT else {}
        return {**described, **role, **media, **_bounds(self.definition)}


def key_inputs(graph: Graph, definitions: Definitions) -> list[KeyInput]:
    """Returns the inputs that a person is likely to change, sorted by kind, then in the order of the graph.

    If the definition of a class is unknown, names and values decide. Linked inputs are left out. So are
    inputs whose name is ambiguous: `inputs` of a request would set another node's input.
    """
    roles = _roles(graph)
    dotted_names = _dotted_names(graph)
    found = [
        each
        for node_id, node in graph.items()
        for each in _node_inputs(node_id, node, definitions, roles.get(node_id))
        if not _is_ambiguous(each, dotted_names)
    ]
    order, role_order = list(Kind), [Role.POSITIVE, None, Role.NEGATIVE]
    return sorted(found, key=lambda each: (order.index(each.kind), role_order.index(each.role)))


def _exact_in_json(value: Any) -> Any:
    return str(value) if isinstance(value, int) and abs(value) > LARGEST_EXACT else value


def _node_inputs(
    node_id: str, node: Mapping[str, Any], definitions: Definitions, role: Role | None
) -> Iterator[KeyInput]:
    class_type = node["class_type"]
    definition = definitions.get(class_type)
    title = node_title(node) or (definition.display_name if definition else class_type)
    inputs = as_object(node.get("inputs"))
    declared = {each.name: each for each in declared_inputs(definition, inputs)} if definition else {}
    for name, value in inputs.items():
        kind = _kind(class_type, name, value, declared.get(name))
        if kind is not None:
            yield KeyInput(
                node_id=node_id,
                class_type=class_type,
                title=title,
                input=name,
                kind=kind,
                value=value,
                role=role if kind is Kind.TEXT else None,
                media=_media(value, declared.get(name)) if kind is Kind.FILE else None,
                definition=declared.get(name),
            )


def _kind(class_type: str, name: str, value: object, declared: InputDefinition | None) -> Kind | None:
    if isinstance(value, str):
        return _kind_of_text(class_type, name, value, declared)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if declared.is_called_seed and declared.type == "INT" if declared else name in SEED_NAMES:
        return Kind.SEED
    words = _words(name)
    if name in _SIZE_NAMES or words & _SIZE_WORDS:
        return Kind.SIZE
    if "steps" in words:
        return Kind.STEPS
    return Kind.NUMBER if words & _NUMBER_WORDS else None


def _kind_of_text(class_type: str, name: str, value: str, declared: InputDefinition | None) -> Kind | None:
    if names_files(class_type, declared) if declared else _loads_media(class_type, value):
        return Kind.FILE
    words = _words(name)
    if is_model(value) or (words & _CHOICE_WORDS and (declared is None or declared.choices is not None)):
        return Kind.CHOICE
    if declared is not None and declared.type != "STRING":
        return None
    is_box = declared is not None and (declared.is_text_box or bool(declared.options.get("dynamicPrompts")))
    has_text_name = name in _TEXT_NAMES or bool(words & _TEXT_WORDS)
    return Kind.TEXT if is_box or has_text_name else None


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split("[._ ]", name.lower()))


def _loads_media(class_type: str, value: str) -> bool:
    is_known = _media_by_ending(value) is not None or _ending(value) in _MODELS_3D
    return "load" in class_type.lower() and is_known


def _media(value: str, declared: InputDefinition | None) -> str | None:
    options = declared.options if declared else {}
    by_upload = next((media for flag, media in _UPLOADS.items() if options.get(flag)), None)
    return by_upload or _media_by_ending(value)


def _media_by_ending(value: str) -> str | None:
    return next((media for media, endings in _MEDIA.items() if _ending(value) in endings), None)


def _ending(value: str) -> str:
    return PurePosixPath(folder_and_name(value)[1]).suffix.lower()


def _bounds(declared: InputDefinition | None) -> dict[str, Any]:
    """Returns range, step and options that the instance declares, as far as JSON can hold them."""
    if declared is None:
        return {}
    named = {"minimum": "min", "maximum": "max", "step": "step"}
    bounds = {name: declared.options.get(option) for name, option in named.items()}
    found: dict[str, Any] = {name: value for name, value in bounds.items() if _is_number(value)}
    if declared.choices is not None:
        found["options"] = [each for each in declared.choices if _is_plain(each)][:MOST_OPTIONS]
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or isfinite(value)


def _dotted_names(graph: Graph) -> frozenset[str]:
    """Returns every id, title and class name in the graph that contains a dot."""
    words = (
        word for node_id, node in graph.items() for word in (node_id, node_title(node), node["class_type"])
    )
    return frozenset(word for word in words if word and "." in word)


def _is_ambiguous(each: KeyInput, words: frozenset[str]) -> bool:
    """True if `inputs` of a request would read the name as an input of another node.

    `inputs` takes the longest prefix that names a node: `6.a.b` is input `a.b` of node `6`, unless there is a
    node named `6.a`.
    """
    parts = each.input.split(".")
    longer = (f"{each.node_id}.{'.'.join(parts[:count])}" for count in range(1, len(parts)))
    return not each.input or any(prefix in words for prefix in longer)


def _roles(graph: Graph) -> dict[str, Role]:
    """Returns the role of each node that is linked, directly or not, to an input named `positive` or
    `negative`. A node that is linked to both is positive."""
    roles: dict[str, Role] = {}
    for role in (Role.NEGATIVE, Role.POSITIVE):
        start = {source for node in graph.values() for source in _sources(node, (role.value,))}
        roles.update(dict.fromkeys(closure(start, partial(_upstream, graph, role)), role))
    return roles


def _upstream(graph: Graph, role: Role, node_id: str) -> list[str]:
    """Returns the sources of a node that can have the role. A node with both inputs passes each on
    separately, so only the source of the role's own input counts."""
    names = as_object(graph[node_id].get("inputs"))
    takes_both = all(each.value in names for each in Role)
    return _sources(graph[node_id], (role.value,) if takes_both else tuple(names))


def _sources(node: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    inputs = as_object(node.get("inputs"))
    found = []
    for name in names:
        match inputs.get(name):
            case [str() as source, int() | float()]:
                found.append(source)
    return found
