"""Whether an input takes what the graph gives it, by the rules of ComfyUI's own validation.

ComfyUI asks for every required input, and converts INT, FLOAT, STRING and BOOLEAN, whatever the class. It
leaves out the rest (range, choices, type of a link) where the class checks that itself, which `/object_info`
does not tell. So only of the classes that come with ComfyUI can be said for certain what it will refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows import input_errors
from comfyui_workflow.workflows.node_definitions import InputDefinition, NodeDefinition
from comfyui_workflow.workflows.validation.files import (
    FilesKnown,
    Presence,
    names_files,
    names_in,
    place,
)
from comfyui_workflow.workflows.validation.suggestions import Suggestions

_OWN_CHECKS = {("LoadImageSetNode", "resize_method")}
"""Inputs of ComfyUI's own classes, besides those for files, that the class itself checks."""
_IMAGES = frozenset({"IMAGE", "MASK", "LATENT", "AUDIO", "VIDEO"})
_MODELS = frozenset({"MODEL", "CLIP", "VAE", "CONTROL_NET", "CLIP_VISION", "STYLE_MODEL", "UPSCALE_MODEL"})
_ONLY_LINKED = _IMAGES | _MODELS | {"CONDITIONING", "SAMPLER", "SIGMAS", "NOISE", "GUIDER"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one input. Where it is not certain, only ComfyUI itself can say whether it runs."""

    code: str
    message: str
    is_certain: bool = True
    input_name: str | None = None
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedClass:
    """A class as its nodes are checked against it; reading it once is enough for all of them."""

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
        """Comes with ComfyUI, and so is known to be checked by it."""
        return is_own(self.definition)

    def is_checked(self, declared: InputDefinition) -> bool:
        """Whether ComfyUI certainly looks at range and choices of this input."""
        key = (self.definition.class_type, declared.name)
        return self.is_own and key not in _OWN_CHECKS and not names_files(key[0], declared)


def is_own(definition: NodeDefinition) -> bool:
    return definition.module == "nodes" or definition.module.startswith("comfy_extras.")


def is_dynamic(type_name: str) -> bool:
    """A type that stands for others, which only the node's other inputs tell."""
    return type_name.startswith("COMFY_") and type_name.endswith("_V3")


@dataclass(frozen=True)
class InputCheck:
    """Everything that is wrong with the values that inputs have; links are checked elsewhere."""

    files: FilesKnown
    suggestions: Suggestions
    _choices: dict[int, tuple[Any, frozenset[Any] | None]] = field(default_factory=dict)
    _files: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)

    def problems(self, checked: CheckedClass, declared: InputDefinition, given: Any) -> Iterator[Problem]:
        value = unwrapped(given)
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
        folder, name = place(value)
        presence = self.files.presence(folder, name)
        is_listed = self._is_among(declared, value)
        if is_listed and presence is not Presence.ABSENT:
            return None
        if presence in (Presence.PROVIDED, Presence.FOUND):
            is_new = presence is Presence.PROVIDED and "/" not in name
            is_taken = not declared.options.get("file_upload") and (checked.is_own or is_new)
            return None if is_taken else _unlisted_file(declared, value)
        near = self.suggestions.nearest(value, self._files_there(declared))
        is_absent = presence is Presence.ABSENT
        absent = "neither sent along nor there" if is_absent else "not sent along and may not be there"
        offered = "; the nearest that is: " + ", ".join(near) if near else ""
        return Problem(
            code="input_file_missing",
            message=f'input "{declared.name}" names the file "{shown(value)}", which is {absent}{offered}',
            is_certain=is_absent and checked.is_own and not is_listed,
            nearest=near,
        )

    def _files_there(self, declared: InputDefinition) -> list[Any]:
        choices = declared.choices or ()
        if id(choices) not in self._files:
            self._files[id(choices)] = (choices, [*choices, *sorted(self.files.provided)])
        return self._files[id(choices)][1]

    def _choice(self, checked: CheckedClass, declared: InputDefinition, value: Any) -> Problem | None:
        """ComfyUI compares lists that stand in the place of the type; newer ones also the others, unless
        the browser alone knows those."""
        if declared.choices is None or declared.options.get("remote") or declared.options.get("remote_combo"):
            return None
        is_several = bool(declared.options.get("multiselect")) and isinstance(value, list)
        absent = [each for each in (value if is_several else [value]) if not self._is_among(declared, each)]
        if not absent:
            return None
        is_comparable = self._set_of(declared) is not None and not declared.options.get("multiselect")
        is_certain = declared.are_choices_checked and is_comparable and checked.is_checked(declared)
        return self._not_listed(declared, absent[0], is_certain=is_certain)

    def _not_listed(self, declared: InputDefinition, value: Any, *, is_certain: bool) -> Problem:
        choices = declared.choices or ()
        near = self.suggestions.nearest(shown(value), choices)
        message = input_errors.not_in_list(declared.name, value, input_errors.offer(declared.choices, near))
        return Problem(code="value_not_in_list", message=message, is_certain=is_certain, nearest=near)

    def _is_among(self, declared: InputDefinition, value: Any) -> bool:
        known = self._set_of(declared)
        try:
            return value in known if known is not None else value in (declared.choices or ())
        except (
            TypeError,
            RecursionError,
        ):  # an object or a list is no choice; nor what is nested without end
            return False

    def _set_of(self, declared: InputDefinition) -> frozenset[Any] | None:
        """The choices, to look one up at once; None where they are things that cannot be."""
        choices = declared.choices or ()
        if id(choices) not in self._choices:
            try:
                found: frozenset[Any] | None = frozenset(choices)
            except TypeError:
                found = None
            self._choices[id(choices)] = (choices, found)
        return self._choices[id(choices)][1]


def unwrapped(value: Any) -> Any:
    """A list as a value goes in an object, because a list of two is a link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def converted(type_name: str, value: Any) -> Any:
    """As ComfyUI does before it looks at the value. Raises: TypeError, ValueError, OverflowError."""
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
    """It is there; whether that is enough, or the list counts, is for the class to say."""
    if declared.choices is None:
        return None
    offered = input_errors.offer(declared.choices, ())
    message = f'input "{declared.name}" names the file "{shown(value)}", which it does not list{offered}'
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
            message = f'input "{declared.name}" is {input_errors.quoted(value)}, which no range applies to'
            is_certain = certain and isinstance(bound, int | float)
            return Problem(code="exception_during_validation", message=message, is_certain=is_certain)
        if value < bound if key == "min" else value > bound:
            return Problem(code=code, message=phrase(declared.name, value, bound), is_certain=certain)
    return None


def _unlinked(declared: InputDefinition, value: Any) -> Problem | None:
    """ComfyUI lets it pass, and the node has to make do with it."""
    if value is None or declared.type not in _ONLY_LINKED:
        return None
    message = (
        f'input "{declared.name}" is {input_errors.quoted(value)}, where a link to a {declared.type} belongs'
    )
    return Problem(code="link_expected", message=message, is_certain=False)
