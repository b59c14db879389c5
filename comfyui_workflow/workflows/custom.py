"""Declared parameters of a custom workflow: a workflow file with a few named values that a request sets.
Pure.

A parameter sets one or more inputs of the graph, so it needs the words of a form (type, limits, description)
and the inputs that it sets:

    {"workflow": {…}, "summary": "Text to image", "parameters": {
        "prompt": {"input": "6.text", "required": true},
        "steps": {"input": "3.steps", "type": "integer", "minimum": 1, "maximum": 50},
        "photo": {"input": "10.image", "type": "file"}}}

Without declared parameters, the key inputs of the graph are the parameters, under their names in `inputs`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from comfyui_workflow.errors import InvalidGraph, InvalidRequest
from comfyui_workflow.parsing.fields import refuse_unknown_fields
from comfyui_workflow.parsing.untrusted import as_object, shown
from comfyui_workflow.workflows.editable_inputs import Kind, key_inputs
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import inputs_named

Json = dict[str, Any]
_LARGEST_EXACT = 2**53 - 1


class ParameterType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    FILE = "file"
    """Path on the server of an input file, which is uploaded to the instance."""


_SAID = {
    ParameterType.STRING: "a text",
    ParameterType.INTEGER: "a whole number",
    ParameterType.NUMBER: "a number",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.FILE: "the path of a file",
}
_FIELDS = (
    "input",
    "type",
    "title",
    "description",
    "default",
    "required",
    "enum",
    "minimum",
    "maximum",
    "maxLength",
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    name: str
    inputs: tuple[str, ...]
    """Names in the `inputs` of a request: `<node id or title>.<input>`."""
    type: ParameterType
    default: Any = None
    """None: the value in the workflow stays."""
    is_required: bool = False
    title: str | None = None
    description: str | None = None
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    longest: int | None = None

    def schema(self) -> Json:
        """Returns the JSON Schema of the value."""
        found: Json = {"type": "string" if self.type is ParameterType.FILE else self.type.value}
        optional = {
            "format": "file" if self.type is ParameterType.FILE else None,
            "title": self.title,
            "description": self.description,
            "default": self.default,
            "enum": list(self.choices) or None,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "maxLength": self.longest,
        }
        return found | {name: value for name, value in optional.items() if value is not None}

    def check(self, value: Any) -> Any:
        """Returns the value. Raises: InvalidRequest, naming the parameter."""
        if not _has_type(value, self.type):
            raise InvalidRequest(f"input.{self.name} must be {_SAID[self.type]}")
        if self.choices and value not in self.choices:
            allowed = ", ".join(shown(each) for each in self.choices)
            raise InvalidRequest(f"input.{self.name} must be one of {allowed}")
        if self.minimum is not None and value < self.minimum:
            raise InvalidRequest(f"input.{self.name} must be at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise InvalidRequest(f"input.{self.name} must be at most {self.maximum:g}")
        if self.longest is not None and len(value) > self.longest:
            raise InvalidRequest(f"input.{self.name} must have at most {self.longest} characters")
        return value


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The values of one request, as `execute` takes them."""

    inputs: Json
    files: tuple[str, ...]
    values: Json
    """By the names of the parameters, with defaults."""


@dataclass(frozen=True, kw_only=True)
class DeclaredWorkflow:
    """A workflow file with its parameters."""

    workflow: Workflow
    parameters: tuple[Parameter, ...]
    summary: str | None = None
    description: str | None = None

    def schema(self) -> Json:
        """Returns the JSON Schema of the `input` of a request."""
        required = [each.name for each in self.parameters if each.is_required]
        properties = {each.name: each.schema() for each in self.parameters}
        found: Json = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**found, "required": required} if required else found

    def bind(self, values: Mapping[str, Any]) -> Binding:
        """Checks the values and returns what they set. Raises: InvalidRequest, naming the parameter."""
        refuse_unknown_fields(values, [each.name for each in self.parameters], "input")
        inputs, files, used = Json(), list[str](), Json()
        for parameter in self.parameters:
            value = values.get(parameter.name)
            if value is None and parameter.is_required:
                raise InvalidRequest(f"input.{parameter.name} is required")
            value = parameter.default if value is None else parameter.check(value)
            if value is None:
                continue
            used[parameter.name] = value
            inputs |= dict.fromkeys(parameter.inputs, value)
            if parameter.type is ParameterType.FILE:
                files.append(value)
        return Binding(inputs=inputs, files=tuple(dict.fromkeys(files)), values=used)


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a file says beside its workflow."""

    parameters: Mapping[str, Any] | None = None
    summary: str | None = None
    description: str | None = None


DECLARATION_FIELDS = ("parameters", "summary", "description")


def read_declaration(value: Mapping[str, Any]) -> Declaration:
    """Reads the fields of a declaration; ignores others. Raises: InvalidRequest."""
    for name in ("summary", "description"):
        if not isinstance(value.get(name), str | None):
            raise InvalidRequest(f"{name} must be a text")
    parameters = value.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest('parameters must be an object: {"steps": {"input": "3.steps"}}')
    return Declaration(
        parameters=parameters, summary=value.get("summary"), description=value.get("description")
    )


def declared_workflow(workflow: Workflow, declaration: Declaration) -> DeclaredWorkflow:
    """Combines a workflow and its declaration. Raises: InvalidRequest, naming the parameter; InvalidGraph."""
    declared = declaration.parameters
    parameters = _derived(workflow) if declared is None else _declared(workflow, declared)
    return DeclaredWorkflow(
        workflow=workflow,
        parameters=tuple(parameters),
        summary=declaration.summary,
        description=declaration.description,
    )


def _declared(workflow: Workflow, declared: Mapping[str, Any]) -> Iterator[Parameter]:
    for name, given in declared.items():
        fields = {"input": given} if isinstance(given, str) else given
        if not isinstance(fields, dict):
            raise InvalidRequest(f'parameters.{name} must be an object: {{"input": "3.steps"}}')
        try:
            yield _parameter(workflow, name, fields)
        except InvalidRequest as error:
            raise InvalidRequest(f"parameters.{name}: {error}") from error


def _parameter(workflow: Workflow, name: str, fields: Mapping[str, Any]) -> Parameter:
    """Raises: InvalidRequest."""
    refuse_unknown_fields(fields, _FIELDS, "a parameter")
    names = fields.get("input")
    inputs = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else ()
    if not inputs or not all(isinstance(each, str) for each in inputs):
        raise InvalidRequest('input must be "<node id or title>.<input>", or a list of them')
    places = inputs_named(workflow.outline, inputs)
    kind = _type(fields, workflow, places)
    choices = fields.get("enum")
    if choices is not None and not (isinstance(choices, list) and choices):
        raise InvalidRequest("enum must be a list of values")
    parameter = Parameter(
        name=name,
        inputs=inputs,
        type=kind,
        is_required=_of_type(fields, "required", bool, "true or false") or False,
        title=_of_type(fields, "title", str, "a text"),
        description=_of_type(fields, "description", str, "a text"),
        choices=tuple(choices or ()),
        minimum=_limit(fields, "minimum", kind),
        maximum=_limit(fields, "maximum", kind),
        longest=_longest(fields, kind),
    )
    default = fields.get("default")
    return parameter if default is None else _with_default(parameter, default)


def _with_default(parameter: Parameter, default: Any) -> Parameter:
    try:
        parameter.check(default)
    except InvalidRequest as error:
        raise InvalidRequest(str(error).replace(f"input.{parameter.name}", "default", 1)) from error
    return Parameter(**{**vars(parameter), "default": default})


def _type(fields: Mapping[str, Any], workflow: Workflow, places: frozenset[tuple[str, str]]) -> ParameterType:
    """Returns the declared type, else that of the value in the workflow. Raises: InvalidRequest."""
    given = fields.get("type")
    if given is not None:
        if given not in tuple(ParameterType):
            raise InvalidRequest(f"type must be one of {', '.join(ParameterType)}")
        return ParameterType(given)
    own = [fields.get("default"), *(fields.get("enum") or [])]
    saved = [workflow.outline[node_id]["inputs"].get(name) for node_id, name in sorted(places)]
    known = next((each for each in (*saved, *own) if isinstance(each, str | bool | int | float)), None)
    if known is None:
        raise InvalidRequest(f"type is missing: one of {', '.join(ParameterType)}")
    numbers = (*own, fields.get("minimum"), fields.get("maximum"))
    is_number = type(known) is int and any(isinstance(each, float) for each in numbers)
    return ParameterType.NUMBER if is_number else _type_of(known)  # an API file has 8 for the float 8.0


def _type_of(value: object) -> ParameterType:
    match value:
        case bool():
            return ParameterType.BOOLEAN
        case int():
            return ParameterType.INTEGER
        case float():
            return ParameterType.NUMBER
    return ParameterType.STRING


def _has_type(value: object, kind: ParameterType) -> bool:
    match kind:
        case ParameterType.STRING:
            return isinstance(value, str)
        case ParameterType.FILE:
            return isinstance(value, str) and bool(value.strip())
        case ParameterType.BOOLEAN:
            return isinstance(value, bool)
        case ParameterType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case ParameterType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _of_type(fields: Mapping[str, Any], name: str, kind: type[Any], said: str) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidRequest(f"{name} must be {said}")
    return value


def _limit(fields: Mapping[str, Any], name: str, kind: ParameterType) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if kind not in (ParameterType.INTEGER, ParameterType.NUMBER) or not _has_type(
        value, ParameterType.NUMBER
    ):
        raise InvalidRequest(f"{name} must be a number, of a parameter that is one")
    return value  # type: ignore[no-any-return]


def _longest(fields: Mapping[str, Any], kind: ParameterType) -> int | None:
    value = fields.get("maxLength")
    if value is None:
        return None
    if kind is not ParameterType.STRING or not _has_type(value, ParameterType.INTEGER) or value < 0:
        raise InvalidRequest("maxLength must be a whole number, of a parameter that is a text")
    return value  # type: ignore[no-any-return]


def _derived(workflow: Workflow) -> Iterator[Parameter]:
    """Yields the key inputs as parameters. A file of the workflow is one of the instance unless the request
    names one of this server, so it is a text."""
    for each in key_inputs(workflow.outline, Definitions({})):
        is_number = isinstance(each.value, int | float) and not isinstance(each.value, bool)
        if is_number and abs(each.value) > _LARGEST_EXACT:
            continue
        kind = ParameterType.FILE if each.kind is Kind.FILE and each.media else _type_of(each.value)
        if kind is ParameterType.INTEGER and each.kind is Kind.NUMBER:
            kind = ParameterType.NUMBER  # an API file has 8 for the float 8.0
        yield Parameter(name=each.name, inputs=(each.name,), type=kind, title=f"{each.title}: {each.input}")


def without_declaration(value: Mapping[str, Any]) -> object:
    """Returns the workflow inside a file with a declaration. Raises: InvalidGraph."""
    if "workflow" not in value:
        raise InvalidGraph('The file has parameters, but no workflow: {"workflow": {…}, "parameters": {…}}')
    return value["workflow"]


def inlined(schema: Mapping[str, Any]) -> Json:
    """Returns a JSON Schema without `$defs`: each reference is replaced by its definition. A definition that
    contains itself becomes the schema of any value."""
    definitions = {f"#/$defs/{name}": each for name, each in as_object(schema.get("$defs")).items()}

    def resolve(value: Any, seen: frozenset[str]) -> Any:
        if isinstance(value, list):
            return [resolve(each, seen) for each in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        rest = {name: resolve(each, seen) for name, each in value.items() if name not in ("$ref", "$defs")}
        if not isinstance(reference, str) or reference in seen or reference not in definitions:
            return rest
        return {**resolve(definitions[reference], seen | {reference}), **rest}

    found: Json = resolve(dict(schema), frozenset())
    return found
