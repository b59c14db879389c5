"""Node classes in an instance's `/object_info`. The content is untrusted; parsing it never raises."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
"""Dynamic types: an input that stands for several inputs, or whose type depends on the links of the node. See
`dynamic_inputs.py`."""
_DEFAULTS: Mapping[str, Any] = {
    "INT": 0,
    "FLOAT": 0,
    "STRING": "",
    "BOOLEAN": False,
    "COMBO": None,
    "MARKDOWN": "",
    "TEXTAREA": "",
    "COLOR": "#000000",
    "COLORS": [],
    "CURVE": {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"},
    "RANGE": {"min": 0.0, "max": 1.0},
    "BOUNDING_BOX": {"x": 0, "y": 0, "width": 512, "height": 512},
    "BOUNDING_BOXES": [],
    "IMAGECOMPARE": ["", ""],
    "PAINTER": None,
    "COMPOSITOR": {},
    "CHART": {},
    "GALLERIA": [],
    "LIGHT_INFO_PREVIEW": [],
    "LOAD_3D": "",
    DYNAMIC_COMBO: None,
}
"""The types with a widget whose value is sent, and the values that they have in a new node of the editor if
the class has no default."""
_WITHOUT_OWN_DEFAULT = frozenset({"MARKDOWN", "IMAGECOMPARE", DYNAMIC_COMBO})
"""The types whose widget ignores the default of the class."""
BUTTON_TYPES = frozenset({"IMAGEUPLOAD", "AUDIOUPLOAD", "AUDIO_UI", "CAMERA_ANGLE_VIEW"})
"""Widgets whose values the editor saves with the other values, but never sends with a prompt."""
_DISPLAY_TYPES = frozenset({"RESOLUTION_PREVIEW", "CAMERA_INFO_STATE"})
"""Widgets whose values are neither saved nor sent."""
BROWSER_TYPES = frozenset({"WEBCAM", "AUDIO_RECORD", "LOAD_3D", "LOAD_3D_ANIMATION"})
"""Widgets whose value the browser creates when the editor queues a prompt."""
VIEWPORT = "viewport_state"
"""Name of a 3D widget without which the class also runs: it only places the camera."""
WIDGET_TYPES = frozenset(_DEFAULTS) | BUTTON_TYPES | _DISPLAY_TYPES | BROWSER_TYPES
SEED_NAMES = frozenset({"seed", "noise_seed"})
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload")


@dataclass(frozen=True, kw_only=True)
class RemoteChoices:
    """Source of the choices of a COMBO that the editor requests from a route of the instance."""

    route: str
    takes_first: bool
    """The editor selects the first choice after every request."""
    has_button: bool
    """The widget has a button that repeats the request."""


@dataclass(frozen=True, kw_only=True)
class InputDefinition:
    """One input of a class. `type` is ComfyUI's type name: `INT`, `IMAGE`, `COMBO`, `*`; several are
    separated by commas."""

    name: str
    type: str
    is_required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    """The allowed values of a COMBO; None if the instance does not list them."""
    are_choices_checked: bool = False
    """True if ComfyUI checks the choices: older versions check only a list that is declared as the type."""
    has_list_type: bool = False
    """True if the class declares the list of choices as the type."""

    @property
    def is_forced(self) -> bool:
        """True if the input is a socket although its type has a widget."""
        return bool(self.options.get("forceInput"))

    @property
    def is_widget(self) -> bool:
        """True if a person can set the value at the node itself. The input can still be linked."""
        own_widget = as_text(self.options.get("widgetType"))  # the editor's or that of a pack
        has_widget = self.type in WIDGET_TYPES or own_widget in WIDGET_TYPES
        return not self.is_forced and has_widget

    @property
    def is_button(self) -> bool:
        """True if the widget has no value that is sent with a prompt."""
        return self.type in BUTTON_TYPES | _DISPLAY_TYPES

    @property
    def is_text_box(self) -> bool:
        """True if the widget is a text box, which converts every value to text."""
        return self.type == "MARKDOWN" or (self.type == "STRING" and bool(self.options.get("multiline")))

    @property
    def is_of_the_browser(self) -> bool:
        """True if only a browser can make a value with which the class runs."""
        return self.type in BROWSER_TYPES and self.name != VIEWPORT

    @property
    def is_file(self) -> bool:
        """True if the value is a file name in a directory of ComfyUI, and the widget has an upload button."""
        return any(self.options.get(upload) for upload in _UPLOADS)

    @property
    def remote(self) -> RemoteChoices | None:
        raw = as_object(self.options.get("remote"))
        route = as_text(raw.get("route")) or ""
        takes_first = raw.get("control_after_refresh") == "first"
        has_button = bool(raw.get("refresh_button"))
        if not route.startswith("/"):  # another host: never request it
            return None
        return RemoteChoices(route=route, takes_first=takes_first, has_button=has_button)

    @property
    def control_count(self) -> int:
        """Number of values that the editor saves after this one for "control after generate". A COMBO has
        two: the second is the filter for its choices."""
        is_declared = bool(self.options.get("control_after_generate"))
        if self.type == "COMBO":
            return 2 - bool(self.options.get("multi_select")) if is_declared else 0
        if self.type == "INT":
            return int(self.is_called_seed)
        return int(is_declared and self.type == "FLOAT")

    @property
    def is_called_seed(self) -> bool:
        """True if the class declares "control after generate". Without a declaration, the name decides."""
        return bool(self.options.get("control_after_generate", self.name in SEED_NAMES))

    @property
    def row_width(self) -> int:
        """Number of values that the editor saves for this input."""
        if self.type == "IMAGECOMPARE" or self.type in _DISPLAY_TYPES:
            return 0
        if self.type == "BOUNDING_BOX":
            return 5  # also its four numbers
        return 1 + self.control_count + bool(self.remote and self.remote.has_button)

    @property
    def default(self) -> Any:
        """The value in a new node of the editor; None if it has none."""
        default = self.options.get("default")
        if self.type == "COMBO":
            return [] if self.options.get("multi_select") else default or self._first_choice
        if default is None or self.type in _WITHOUT_OWN_DEFAULT:
            return _DEFAULTS.get(self.type)
        return str(default) if self.type == "STRING" and isinstance(default, int | float) else default

    @property
    def _first_choice(self) -> Any:
        return self.choices[0] if self.choices else None


@dataclass(frozen=True, kw_only=True)
class NodeDefinition:
    class_type: str
    display_name: str
    inputs: tuple[InputDefinition, ...]
    """Required inputs first, then optional ones, each in the order of the class."""
    outputs: tuple[str, ...]
    """The type of each output slot."""
    is_output: bool
    has_input_order: bool
    """False for old versions of ComfyUI, which do not send `input_order`."""
    module: str
    """Python module of the class: `nodes`, `comfy_extras.…`, `custom_nodes.…`."""

    @cached_property
    def sockets(self) -> tuple[InputDefinition, ...]:
        return tuple(each for each in self.inputs if not each.is_widget)

    @cached_property
    def widgets(self) -> tuple[InputDefinition, ...]:
        return tuple(each for each in self.inputs if each.is_widget)

    def input(self, name: str) -> InputDefinition | None:
        return next((each for each in self.inputs if each.name == name), None)


class Definitions:
    """The node classes of one instance. Each is parsed at its first use, then cached."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self.object_info = object_info
        self._parsed: dict[str, NodeDefinition | None] = {}

    def get(self, class_type: str) -> NodeDefinition | None:
        if class_type not in self._parsed:
            raw = self.object_info.get(class_type)
            self._parsed[class_type] = _parse_node(class_type, raw) if isinstance(raw, dict) else None
        return self._parsed[class_type]

    @cached_property
    def have_dynamic_inputs(self) -> bool:
        """True if a class has a dynamic combo: the instance has a ComfyUI and an editor of 2026 or newer."""
        groups = [as_object(as_object(raw).get("input")) for raw in self.object_info.values()]
        declared = [
            each
            for group in groups
            for name in ("required", "optional")
            for each in as_object(group.get(name)).values()
        ]
        return any(isinstance(each, list) and each[:1] == [DYNAMIC_COMBO] for each in declared)

    def __contains__(self, class_type: object) -> bool:
        return isinstance(self.object_info.get(class_type), dict)  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        return iter(self.object_info)


def _parse_node(class_type: str, raw: Mapping[str, Any]) -> NodeDefinition:
    return NodeDefinition(
        class_type=class_type,
        display_name=as_text(raw.get("display_name")) or class_type,
        inputs=_as_checked(raw),
        outputs=tuple(_type_name(each) for each in as_list(raw.get("output"))),
        is_output=raw.get("output_node") is True,
        has_input_order=isinstance(raw.get("input_order"), dict),
        module=as_text(raw.get("python_module")) or "",
    )


def _as_checked(raw: Mapping[str, Any]) -> tuple[InputDefinition, ...]:
    """Parses the inputs of a class. Versions after 0.8 send `is_input_list`, and check every list of
    choices."""
    inputs = parse_inputs(as_object(raw.get("input")), as_object(raw.get("input_order")))
    if "is_input_list" not in raw:
        return tuple(inputs)
    return tuple(replace(each, are_choices_checked=each.type == "COMBO") for each in inputs)


def parse_inputs(
    groups: Mapping[str, Any], order: Mapping[str, Any], prefix: str = ""
) -> Iterator[InputDefinition]:
    """Parses both groups of inputs, `required` and `optional`. An input in both groups is required, with the
    optional declaration. `prefix` is put before each name."""
    parsed: dict[str, InputDefinition] = {}
    for group in ("required", "optional"):
        declared = as_object(groups.get(group))
        first = [name for name in as_list(order.get(group)) if isinstance(name, str) and name in declared]
        for name in dict.fromkeys([*first, *declared]):
            is_required = group == "required" or name in parsed
            parsed[name] = _parse_input(prefix + name, declared[name], is_required=is_required)
    return iter(parsed.values())


def _parse_input(name: str, declared: object, *, is_required: bool) -> InputDefinition:
    """Parses `["INT", {options}]`; the type can also be a list of choices."""
    parts = as_list(declared)
    kind = parts[0] if parts else "*"
    options = as_object(parts[1]) if len(parts) > 1 else {}
    is_list = isinstance(kind, list)
    choices = kind if is_list else options.get("options") if kind == "COMBO" else None
    return InputDefinition(
        name=name,
        type="COMBO" if is_list else _type_name(kind),
        is_required=is_required,
        options=options,
        choices=tuple(choices) if isinstance(choices, list) else None,
        are_choices_checked=is_list,
        has_list_type=is_list,
    )


def _type_name(kind: object) -> str:
    """Returns the name of a type. A list of choices as the type means COMBO."""
    return "COMBO" if isinstance(kind, list) else as_text(kind) or "*"
