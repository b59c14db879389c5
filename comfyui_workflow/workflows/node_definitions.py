"""What an instance's `/object_info` says of its node classes; whatever it says, reading it raises nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.parsing.untrusted import a_list, a_text, an_object

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "MARKDOWN", "COLOR"})
BUTTON_TYPES = frozenset({"IMAGEUPLOAD", "AUDIOUPLOAD", "AUDIO_UI"})
"""Widgets that are saved in a row with the others and never queued."""
BROWSER_TYPES = frozenset({"WEBCAM", "AUDIO_RECORD", "LOAD_3D", "LOAD_3D_ANIMATION"})
"""Widgets whose value is made in a browser, when the editor queues a prompt."""
SEED_NAMES = frozenset({"seed", "noise_seed"})
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload")


@dataclass(frozen=True, kw_only=True)
class RemoteChoices:
    """The choices of a COMBO come from a route of the instance, asked for by the editor."""

    route: str
    takes_first: bool
    """The first of them is chosen whenever they are asked for."""
    has_button: bool
    """To ask for them again."""


@dataclass(frozen=True, kw_only=True)
class InputDefinition:
    """One input of a class. `type` is ComfyUI's word: `INT`, `IMAGE`, `COMBO`, `*`, several with commas."""

    name: str
    type: str
    is_required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    """What a COMBO may be, as far as the instance tells."""
    are_choices_checked: bool = False
    """ComfyUI compares only lists that stand in the place of the type, not those among the options."""

    @property
    def is_forced(self) -> bool:
        """A socket although its type has a widget."""
        return bool(self.options.get("forceInput"))

    @property
    def is_widget(self) -> bool:
        """Whether a person sets it at the node itself; it may be linked all the same."""
        kind = a_text(self.options.get("widgetType")) or self.type
        return not self.is_forced and kind in WIDGET_TYPES | BROWSER_TYPES | BUTTON_TYPES

    @property
    def is_button(self) -> bool:
        return self.type in BUTTON_TYPES

    @property
    def is_text_box(self) -> bool:
        """Holds text, whatever is put into it."""
        return self.type == "MARKDOWN" or (self.type == "STRING" and bool(self.options.get("multiline")))

    @property
    def is_of_the_browser(self) -> bool:
        return self.type in BROWSER_TYPES

    @property
    def is_file(self) -> bool:
        """The value is the name of a file in a directory of ComfyUI, with a button to bring one there."""
        return any(self.options.get(upload) for upload in _UPLOADS)

    @property
    def remote(self) -> RemoteChoices | None:
        told = an_object(self.options.get("remote"))
        route = a_text(told.get("route")) or ""
        takes_first = told.get("control_after_refresh") == "first"
        has_button = bool(told.get("refresh_button"))
        if not route.startswith("/"):  # it would be another host
            return None
        return RemoteChoices(route=route, takes_first=takes_first, has_button=has_button)

    @property
    def control_count(self) -> int:
        """How many values the editor saves behind this one to say what happens to it after each prompt: for a
        list also which of its values are meant."""
        if self.type == "COMBO":
            return 2 if self.options.get("control_after_generate") else 0
        return 1 if self.type == "INT" and self.is_called_seed else 0

    @property
    def is_called_seed(self) -> bool:
        """The class says so, or the name does."""
        return bool(self.options.get("control_after_generate", self.name in SEED_NAMES))

    @property
    def row_width(self) -> int:
        """How many values the editor saves for it."""
        return 1 + self.control_count + bool(self.remote and self.remote.has_button)

    @property
    def default(self) -> Any:
        """What a new node in the editor has; None where that is nothing."""
        plain = {"MARKDOWN": "", "COLOR": "#000000"}.get(self.type)
        if plain is not None:
            return plain
        if self.type == "COMBO" and self.options.get("multi_select"):
            return []
        if "default" in self.options:
            default = self.options["default"]
            return str(default) if self.type == "STRING" and isinstance(default, int | float) else default
        if self.type == "COMBO":
            return self.choices[0] if self.choices else None
        return {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}.get(self.type)


@dataclass(frozen=True, kw_only=True)
class NodeDefinition:
    class_type: str
    display_name: str
    inputs: tuple[InputDefinition, ...]
    """Required ones first, each kind in the order of the class."""
    outputs: tuple[str, ...]
    """The type of each output slot."""
    is_output: bool
    has_input_order: bool
    """Old ComfyUIs do not tell it."""
    module: str
    """Where the class comes from: `nodes`, `comfy_extras.…`, `custom_nodes.…`."""

    def input(self, name: str) -> InputDefinition | None:
        return next((each for each in self.inputs if each.name == name), None)


class Definitions:
    """The classes of one instance, each read when it is asked for."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self.object_info = object_info
        self._read: dict[str, NodeDefinition | None] = {}

    def get(self, class_type: str) -> NodeDefinition | None:
        if class_type not in self._read:
            told = self.object_info.get(class_type)
            self._read[class_type] = _read_node(class_type, told) if isinstance(told, dict) else None
        return self._read[class_type]

    def __contains__(self, class_type: object) -> bool:
        return isinstance(self.object_info.get(class_type), dict)  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        return iter(self.object_info)


def _read_node(class_type: str, told: Mapping[str, Any]) -> NodeDefinition:
    return NodeDefinition(
        class_type=class_type,
        display_name=a_text(told.get("display_name")) or class_type,
        inputs=tuple(_read_inputs(told)),
        outputs=tuple(_type_name(each) for each in a_list(told.get("output"))),
        is_output=told.get("output_node") is True,
        has_input_order=isinstance(told.get("input_order"), dict),
        module=a_text(told.get("python_module")) or "",
    )


def _read_inputs(told: Mapping[str, Any]) -> Iterator[InputDefinition]:
    """What is declared twice is required, and as it is declared the second time."""
    read: dict[str, InputDefinition] = {}
    for group in ("required", "optional"):
        declared = an_object(an_object(told.get("input")).get(group))
        told_order = a_list(an_object(told.get("input_order")).get(group))
        order = [name for name in told_order if isinstance(name, str) and name in declared]
        for name in dict.fromkeys([*order, *declared]):
            is_required = group == "required" or name in read
            read[name] = _read_input(name, declared[name], is_required=is_required)
    return iter(read.values())


def _read_input(name: str, declared: object, *, is_required: bool) -> InputDefinition:
    """`["INT", {options}]`; a list of choices may stand in the place of the type."""
    parts = a_list(declared)
    kind = parts[0] if parts else "*"
    options = an_object(parts[1]) if len(parts) > 1 else {}
    is_list = isinstance(kind, list)
    choices = kind if is_list else options.get("options") if kind == "COMBO" else None
    return InputDefinition(
        name=name,
        type="COMBO" if is_list else _type_name(kind),
        is_required=is_required,
        options=options,
        choices=tuple(choices) if isinstance(choices, list) else None,
        are_choices_checked=is_list,
    )


def _type_name(kind: object) -> str:
    """An output that is one of a list of choices has that list for its type."""
    return "COMBO" if isinstance(kind, list) else a_text(kind) or "*"
