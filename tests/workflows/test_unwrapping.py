"""Workflows inside of what surrounds them: bodies of requests, entries of the history, texts."""

import json
from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.input_formats import read_given, read_workflow, read_workflow_file
from tests.workflows.making import file, node

GRAPH = {"1": {"class_type": "X", "inputs": {"a": 1}}}
FILE = file(node(1, "X"))
EXTRA = {"extra_pnginfo": {"workflow": FILE}}


@pytest.mark.parametrize(
    ("given", "has_editor_file"),
    [
        ({"prompt": GRAPH, "client_id": "x"}, False),
        ({"client_id": "x", "prompt": GRAPH, "extra_data": EXTRA}, True),
        ({"input": {"workflow": GRAPH, "images": []}}, False),
        ({"id": "x", "input": {"workflow": json.dumps(GRAPH)}, "webhook": "https://example.com"}, False),
        ({"input": json.dumps({"workflow": GRAPH})}, False),
        ({"ssh_connection": "any", "workflow": GRAPH}, False),
        ({"workflow": {"prompt": GRAPH}}, False),
        ({"output": GRAPH, "workflow": FILE}, True),
        ({"prompt": json.dumps(GRAPH), "workflow": json.dumps(FILE)}, True),
        ({"abc": {"prompt": [1, "abc", GRAPH, EXTRA, ["1"]], "outputs": {}}}, True),
        ({"prompt": [1, "abc", GRAPH, {}, ["1"]], "outputs": {}, "status": {}}, False),
        (json.dumps(GRAPH), False),
        (json.dumps(json.dumps({"prompt": GRAPH})), False),
    ],
)
def test_the_workflow_is_unwrapped(given: Any, has_editor_file: bool) -> None:
    for workflow in (read_workflow(given), read_workflow_file(json.dumps(given).encode("utf-16"))):
        assert workflow.graph == GRAPH
        assert workflow.editor_file == (FILE if has_editor_file else None)


KEYS = {"extra_data": {"api_key_comfy_org": "key", **EXTRA}}
OTHERS = {"extra_data": {"auth_token_comfy_org": "token", "api_key_comfy_org": ""}, "client_id": "x"}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"prompt": GRAPH, **KEYS}, "key"),
        ({"prompt": GRAPH, "extra_data": {"comfy_org_api_key": "key"}}, "key"),
        ({"input": {"workflow": {"prompt": GRAPH, **KEYS}}}, "key"),
        ({"input": {"workflow": GRAPH, "comfy_org_api_key": "key"}}, "key"),
        ({"prompt": json.dumps(GRAPH), **KEYS}, "key"),
        (json.dumps({"prompt": GRAPH, **KEYS}), "key"),
        ({"workflow": FILE, **KEYS}, "key"),
        ({"abc": {"prompt": [1, "abc", GRAPH, KEYS["extra_data"], ["1"]], "outputs": {}}}, "key"),
        ({"comfy_org_api_key": "outer", "workflow": {"prompt": GRAPH, **KEYS}}, "outer"),
        ({"prompt": GRAPH, **OTHERS}, None),
        ({"prompt": GRAPH, "extra_data": {"api_key_comfy_org": 7}}, None),
        ({"prompt": GRAPH, "extra_data": ["api_key_comfy_org"]}, None),
        (GRAPH, None),
        (FILE, None),
    ],
)
def test_the_key_beside_the_workflow_is_found(given: Any, key: str | None) -> None:
    """It is not part of the workflow, which is stored."""
    found = read_given(given)
    assert found.api_key == key
    assert key is None or key not in repr(found.workflow)


@pytest.mark.parametrize("given", [{"workflow": FILE}, {"input": {"workflow": json.dumps(FILE)}}])
def test_an_editor_file_is_unwrapped(given: Any) -> None:
    assert read_workflow(given).editor_file == FILE


@pytest.mark.parametrize(
    "graph",
    [
        {name: {"class_type": "X", "inputs": {}} for name in ("prompt", "input", "workflow", "output")},
        {"prompt": {"class_type": "X", "inputs": {"prompt": {"a": {"class_type": "Y"}}}}},
    ],
)
def test_a_node_may_have_the_name_of_a_wrapper(graph: Any) -> None:
    assert read_workflow(graph).graph is graph


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a cat", "a text"),
        ({"prompt": "a cat"}, "node prompt is not an object"),
        ({"input": {"prompt": "a cat", "steps": 3}}, "node prompt is not an object"),
        ({"prompt": {}}, "no nodes"),
        ({"prompt": {"1": {"inputs": {}}}}, 'has no "class_type"'),
        (
            {"input": {"input": {"input": {"input": {"input": {"input": {"input": {"input": {}}}}}}}}},
            "no nodes",
        ),
        ('{"1": ', "a text"),
        ("[" * 100_000, "a text"),
        ('"' * 1000, "a text"),
    ],
)
def test_what_contains_no_workflow_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        read_workflow(given)
