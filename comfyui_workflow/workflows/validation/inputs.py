"""Validation of input values, by the rules of ComfyUI's own validation.

How it works: for every class, ComfyUI requires the required inputs and converts INT, FLOAT, STRING and
BOOLEAN. It skips the other checks (range, choices, type of a link) for inputs that the class checks itself,
and `/object_info` does not say which these are. So these checks are certain only for the classes that are
part of ComfyUI; for other classes a problem is reported as uncertain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows import input_errors
from comfyui_workflow.workflows.node_definitions import DYNAMIC_COMBO, InputDefinition, NodeDefinition
from comfyui_workflow.workflows.validation.files import (
    KnownFiles,
    Presence,
    folder_and_name,
    is_asset_hash,
    names_files,
    names_in,
)
from comfyui_workflow.workflows.validation.live_inputs import is_needed_choice
from comfyui_workflow.workflows.validation.suggestions import Suggestions

_OWN_CHECKS = {
    ("LoadImageSetNode", "resize_method"),
    ("SelectModelDevice", "device"),
    ("SelectCLIPDevice", "device"),
    ("SelectVAEDevice", "device"),
    ("ModelAttentionBackend", "attention"),
}
"""Inputs of ComfyUI's own classes, besides file inputs, that the class checks itself."""
_OWN_CHECKING = frozenset({"CustomCombo", "Load3D", "Load3DAdvanced"})
"""ComfyUI's own classes that check all their inputs themselves."""
_IMAGES = frozenset({"IMAGE", "MASK", "LATENT", "AUDIO", "VIDEO"})
_MODELS = frozenset({"MODEL", "CLIP", "VAE", "CONTROL_NET", "CLIP_VISION", "STYLE_MODEL", "UPSCALE_MODEL"})
_ONLY_LINKED = _IMAGES | _MODELS | {"CONDITIONING", "SAMPLER", "SIGMAS", "NOISE", "GUIDER"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with one input. If it is not certain, only ComfyUI itself can decide if the graph runs."""

    code: str
    message: str
    is_certain: bool = True
    input_name: str | None = None
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedClass:
    """A class prepared for the validation of its nodes; computed once for all of them."""

    definition: NodeDefinition

    @cached_property
    def inputs(self) -> dict[str, InputDefinition]:
        return {declared.name: declared for declared in reversed(self.definition.inputs)}

    @cached_property
    def required(self) -> list[str]:
        return [declared.name for declared in self.definition.inputs if declared.is_required]

    @cached_property
    def position(self) -> dict[str, int]:
        return {declared.name: at for at, declared in enumerate(self.definition.inputs)}

    @cached_property
    def is_own(self) -> bool:
        """True if the class is part of ComfyUI, so its validation is known."""
        return is_own(self.definition)

    def is_checked(self, declared: InputDefinition) -> bool:
        """True if ComfyUI certainly checks range and choices of this input."""
        key = (self.definition.class_type, declared.name)
        is_checked_by_class = key in _OWN_CHECKS or key[0] in _OWN_CHECKING
        return self.is_own and not is_checked_by_class and not names_files(key[0], declared)


def is_own(definition: NodeDefinition) -> bool:
    return definition.module == "nodes" or definition.module.startswith("comfy_extras.")


def is_dynamic(type_name: str) -> bool:
    """True for a dynamic type: the node's other inputs decide which real type it has."""
    return type_name.startswith("COMFY_") and type_name.endswith("_V3")


@dataclass(frozen=True)
class InputCheck:
    """Validation of the values of inputs. Links are validated in `links.py`."""

    files: KnownFiles
    suggestions: Suggestions
    _choices: dict[int, tuple[Any, frozenset[Any] | None]] = field(default_factory=dict)
    _files: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)

    def problems(self, checked: CheckedClass, declared: InputDefinition, given: Any) -> Iterator[Problem]:
        value = given if declared.type == DYNAMIC_COMBO else unwrapped(given)  # ComfyUI compares it as sent
        if names_files(checked.definition.class_type, declared):
            names = list(names_in(given))
            if not names:
                message = input_errors.wrong_type(declared.name, value, "the name of a file")
                yield Problem(code="invalid_input_type", message=message, is_certain=checked.is_own)
            found = (self._file_problem(checked, declared, name) for name in names)
            yield from (problem for problem in found if problem is not None)
            return
        try:
            value = converted(declared.type, value)
        except (TypeError, ValueError, OverflowError):
            message = input_errors.wrong_type(declared.name, value, declared.type)
            yield Problem(code="invalid_input_type", message=message)
            return
        problem = _range(checked, declared, value) or self._choice(checked, declared, value)
        problem = problem or _unlinked(declared, value)
        if problem is not None:
            yield problem

    def _file_problem(self, checked: CheckedClass, declared: InputDefinition, value: str) -> Problem | None:
        folder, name = folder_and_name(value)
        presence = self.files.presence(folder, name)
        is_listed = self._is_among(declared, value)
        if is_listed and presence is not Presence.ABSENT:
            return None
        if presence in (Presence.PROVIDED, Presence.FOUND):
            is_new = presence is Presence.PROVIDED and "/" not in name
            is_taken = not declared.options.get("file_upload") and (checked.is_own or is_new)
            return None if is_taken else _unlisted_file(declared, value)
        near = self.suggestions.nearest(value, self._available_files(declared))
        is_absent = presence is Presence.ABSENT
        absent = "not sent with the request and not on the instance"
        if not is_absent:
            absent = "not sent with the request, and may not be on the instance"
        offered = "; the nearest one there: " + ", ".join(near) if near else ""
        return Problem(
            code="input_file_missing",
            message=f'input "{declared.name}" names the file "{shown(value)}", which is {absent}{offered}',
            is_certain=is_absent and checked.is_own and not is_listed,
            nearest=near,
        )

    def _available_files(self, declared: InputDefinition) -> list[Any]:
        choices = declared.choices or ()
        if id(choices) not in self._files:
            self._files[id(choices)] = (choices, [*choices, *sorted(self.files.provided)])
        return self._files[id(choices)][1]

    def _choice(self, checked: CheckedClass, declared: InputDefinition, value: Any) -> Problem | None:
        """Checks the value against the choices. ComfyUI checks choices that the class declares as the type;
        newer versions also check those among the options. Choices that only the browser requests (`remote`)
        are not checked."""
        if declared.choices is None or declared.options.get("remote") or declared.options.get("remote_combo"):
            return None
        is_several = bool(declared.options.get("multiselect")) and isinstance(value, list)
        given = value if is_several else [value]
        absent = [each for each in given if not (self._is_among(declared, each) or self._is_provided(each))]
        if not absent:
            return None
        is_comparable = self._choice_set(declared) is not None and not declared.options.get("multiselect")
        if declared.type == DYNAMIC_COMBO:
            is_certain = checked.is_own and is_needed_choice(declared)
        else:
            is_certain = declared.are_choices_checked and is_comparable and checked.is_checked(declared)
        is_certain = is_certain and not is_asset_hash(absent[0])
        return self._not_listed(declared, absent[0], is_certain=is_certain)

    def _is_provided(self, value: Any) -> bool:
        """True for a file or directory that is sent with the request: ComfyUI lists it when it checks."""
        return isinstance(value, str) and value in self.files.provided

    def _not_listed(self, declared: InputDefinition, value: Any, *, is_certain: bool) -> Problem:
        choices = declared.choices or ()
        near = self.suggestions.nearest(shown(value), choices)
        message = input_errors.not_in_list(declared.name, value, input_errors.offer(declared.choices, near))
        return Problem(code="value_not_in_list", message=message, is_certain=is_certain, nearest=near)

    def _is_among(self, declared: InputDefinition, value: Any) -> bool:
        known = self._choice_set(declared)
        try:
            return value in known if known is not None else value in (declared.choices or ())
        except (
            TypeError,
            RecursionError,
        ):  # unhashable, or nested too deeply: not one of the choices
            return False

    def _choice_set(self, declared: InputDefinition) -> frozenset[Any] | None:
        """Returns the choices as a set, for a fast lookup; None if they are not hashable."""
        choices = declared.choices or ()
        if id(choices) not in self._choices:
            try:
                found: frozenset[Any] | None = frozenset(choices)
            except TypeError:
                found = None
            self._choices[id(choices)] = (choices, found)
        return self._choices[id(choices)][1]


def unwrapped(value: Any) -> Any:
    """Returns the value without its wrapper. List values are wrapped in an object, because a bare list of two
    is a link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def converted(type_name: str, value: Any) -> Any:
    """Converts a value as ComfyUI does first. Raises: TypeError, ValueError, OverflowError."""
    match type_name:
        case "INT":
            return int(value)
        case "FLOAT":
            return float(value)
        case "BOOLEAN":
            return bool(value)
        case "STRING":
            return value if isinstance(value, str) else shown(value)
    return value


def _unlisted_file(declared: InputDefinition, value: str) -> Problem | None:
    """Returns the problem of a file that exists but is not among the choices. The class decides which of the
    two counts, so the problem is uncertain."""
    if declared.choices is None:
        return None
    absent = "which is not one of its choices" + input_errors.offer(declared.choices, ())
    message = f'input "{declared.name}" names the file "{shown(value)}", {absent}'
    return Problem(code="value_not_in_list", message=message, is_certain=False)


def _range(checked: CheckedClass, declared: InputDefinition, value: Any) -> Problem | None:
    for key, code, phrase in (
        ("min", "value_smaller_than_min", input_errors.too_small),
        ("max", "value_bigger_than_max", input_errors.too_big),
    ):
        if key not in declared.options:
            continue
        bound, certain = declared.options[key], checked.is_checked(declared)
        if not isinstance(bound, int | float) or not isinstance(value, int | float):
            message = f'input "{declared.name}" is {input_errors.quoted(value)}: its range cannot be checked'
            is_certain = certain and isinstance(bound, int | float)
            return Problem(code="exception_during_validation", message=message, is_certain=is_certain)
        if value < bound if key == "min" else value > bound:
            return Problem(code=code, message=phrase(declared.name, value, bound), is_certain=certain)
    return None


def _unlinked(declared: InputDefinition, value: Any) -> Problem | None:
    """Returns the problem of a value at an input that expects a link. ComfyUI does not refuse such a value,
    and the node receives it."""
    if value is None or declared.type not in _ONLY_LINKED:
        return None
    message = (
        f'input "{declared.name}" is {input_errors.quoted(value)}, but should be a link to a {declared.type}'
    )
    return Problem(code="link_expected", message=message, is_certain=False)
