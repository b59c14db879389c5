"""Declared parameters of a workflow: what they accept and set, and declarations that are none."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.custom import (
    DeclaredWorkflow,
    declared_workflow,
    inlined,
    read_declaration,
)
from comfyui_workflow.workflows.model import Workflow
from tests.services.custom_files import GRAPH, PARAMETERS

Json = dict[str, Any]


def declared(**parameters: Any) -> DeclaredWorkflow:
    given = read_declaration({"parameters": parameters, "summary": "Cats"})
    return declared_workflow(Workflow(graph=GRAPH), given)


def test_the_schema_has_the_words_of_the_declaration() -> None:
    assert declared(**PARAMETERS).schema() == {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "description": "What to paint", "maxLength": 40},
            "steps": {"type": "integer", "default": 25, "minimum": 1, "maximum": 50},
            "cfg": {"type": "number"},
            "size": {"type": "integer", "enum": [512, 768]},
        },
        "additionalProperties": False,
        "required": ["prompt"],
    }


def test_values_set_their_inputs() -> None:
    bound = declared(**PARAMETERS).bind({"prompt": "a lake", "size": 768, "cfg": 7})
    assert bound.inputs == {
        "Prompt.text": "a lake",
        "3.steps": 25,
        "3.cfg": 7,
        "5.width": 768,
        "5.height": 768,
    }
    assert bound.files == ()


def test_a_file_is_an_input_file_too() -> None:
    photo = declared(photo={"input": "6.text", "type": "file"})
    assert photo.schema()["properties"]["photo"] == {"type": "string", "format": "file"}
    bound = photo.bind({"photo": "/data/cat.png"})
    assert (bound.inputs, bound.files) == ({"6.text": "/data/cat.png"}, ("/data/cat.png",))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "input.prompt is required"),
        ({"prompt": None}, "input.prompt is required"),
        ({"prompt": 3}, "input.prompt must be a text"),
        ({"prompt": ["6", 0]}, "input.prompt must be a text"),
        ({"prompt": "x" * 41}, "input.prompt must have at most 40 characters"),
        ({"prompt": "x", "steps": "20"}, "input.steps must be a whole number"),
        ({"prompt": "x", "steps": True}, "input.steps must be a whole number"),
        ({"prompt": "x", "steps": 20.5}, "input.steps must be a whole number"),
        ({"prompt": "x", "steps": 0}, "input.steps must be at least 1"),
        ({"prompt": "x", "steps": 51}, "input.steps must be at most 50"),
        ({"prompt": "x", "cfg": float("nan")}, "input.cfg must be a number"),
        ({"prompt": "x", "cfg": float("inf")}, "input.cfg must be a number"),
        ({"prompt": "x", "size": 640}, "input.size must be one of 512, 768"),
        ({"prompt": "x", "step": 9}, "step is not a field of input; the nearest is steps"),
    ],
)
def test_a_value_that_does_not_fit(values: Json, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        declared(**PARAMETERS).bind(values)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (7, 'parameters.a must be an object: {"input": "3.steps"}'),
        ({}, "parameters.a: input must be"),
        ({"input": []}, "parameters.a: input must be"),
        ({"input": [3]}, "parameters.a: input must be"),
        ({"input": "77.steps"}, 'parameters.a: inputs: "77.steps" names no node'),
        ({"input": "steps"}, 'parameters.a: inputs: "steps" names no node'),
        ({"input": "3.steps", "type": "int"}, "parameters.a: type must be one of string, integer"),
        ({"input": "3.steps", "type": ["integer"]}, "parameters.a: type must be one of string, integer"),
        ({"input": "3.nothing"}, "parameters.a: type is missing"),
        ({"input": "3.steps", "minimum": "1"}, "parameters.a: minimum must be a number"),
        ({"input": "6.text", "minimum": 1}, "parameters.a: minimum must be a number"),
        ({"input": "3.steps", "maxLength": 1}, "parameters.a: maxLength must be a whole number"),
        ({"input": "3.steps", "enum": {}}, "parameters.a: enum must be a list of values"),
        ({"input": "3.steps", "required": 1}, "parameters.a: required must be true or false"),
        ({"input": "3.steps", "title": 1}, "parameters.a: title must be a text"),
        ({"input": "3.steps", "maximum": 9, "default": 10}, "parameters.a: default must be at most 9"),
        ({"input": "3.steps", "default": "x"}, "parameters.a: default must be a whole number"),
        ({"input": "3.steps", "maxmum": 9}, "parameters.a: maxmum is not a field of a parameter"),
    ],
)
def test_a_declaration_that_is_none(parameter: object, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        list(declared(a=parameter).parameters)
        declared(a=parameter).bind({})
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("given", [{"parameters": []}, {"summary": 1}, {"description": {}}])
def test_other_fields_of_a_declaration(given: Json) -> None:
    with pytest.raises(InvalidRequest):
        read_declaration(given)


@pytest.mark.parametrize("field", [{"maximum": 1.5}, {"default": 0.5}, {"enum": [0.5, 1]}])
def test_a_number_with_a_fraction_anywhere_is_no_whole_number(field: Json) -> None:
    (parameter,) = declared(a={"input": "3.steps", **field}).parameters
    assert parameter.type == "number"


def test_a_workflow_without_a_declaration_has_its_key_inputs() -> None:
    plain = declared_workflow(Workflow(graph=GRAPH), read_declaration({}))
    properties = plain.schema()["properties"]
    assert {name: each["type"] for name, each in properties.items()} == {
        "6.text": "string",
        "3.seed": "integer",
        "5.width": "integer",
        "5.height": "integer",
        "3.steps": "integer",
        "3.cfg": "number",
    }
    assert plain.bind({"6.text": "a lake"}).inputs == {"6.text": "a lake"}
    assert plain.bind({}).inputs == {}


def test_definitions_are_put_in_their_places() -> None:
    tree = {"properties": {"child": {"$ref": "#/$defs/Tree"}}}
    schema = {"properties": {"a": {"$ref": "#/$defs/Tree", "title": "A"}}, "$defs": {"Tree": tree}}
    assert inlined(schema) == {"properties": {"a": {"properties": {"child": {}}, "title": "A"}}}
