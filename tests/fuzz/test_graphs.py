"""Whatever is handed in as a workflow: a graph that can be planned, kept and sent, or a refusal; and soon."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.comfyui.validation_errors import refusal_sentence
from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.workflows.graph import check_graph, output_ids, sink_ids, with_replaced_texts
from comfyui_workflow.workflows.node_definitions import Definitions
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, nested, texts, values
from tests.runs.test_state_machine import GRAPH, RECORDED, new_run

RECORDED_GRAPHS = [prompt["graph"] for prompts in RECORDED.values() for prompt in prompts][:6]
links = st.tuples(st.sampled_from("12345"), st.integers(0, 2) | st.booleans() | st.floats()).map(list)
inputs = st.dictionaries(texts, links | values, max_size=4)
nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(["LoadImage", "SaveImage"]) | texts, "inputs": inputs},
    optional={"_meta": values | st.fixed_dictionaries({"title": values})},
)
graphs = st.one_of(
    st.dictionaries(st.sampled_from("12345"), nodes, max_size=5),
    st.sampled_from([GRAPH, *RECORDED_GRAPHS]).flatmap(mutations),
    st.dictionaries(texts, nodes | values, max_size=4),
    values,
)


@effort(250)
@given(
    value=graphs,
    definitions=st.dictionaries(st.just("SaveImage"), st.fixed_dictionaries({"output_node": values})),
)
@example(value={"1": {"class_type": "X", "inputs": {"a": nested(250)}}}, definitions={})
@example(value={"1": {"class_type": "X", "inputs": {"a": nested(120, in_object=True)}}}, definitions={})
@example(value={"1": {"class_type": "X", "inputs": {"a": 10**4000}}}, definitions={})
def test_a_value_is_a_graph_or_is_refused(value: Json, definitions: dict[str, Any]) -> None:
    try:
        graph = check_graph(value)
    except InvalidGraph as error:
        assert str(error)
        return
    assert graph is value
    sinks = planned_nodes(graph, sink_ids(graph))
    assert {node.node_id for node in sinks} == set(graph)
    assert {
        node.node_id for node in planned_nodes(graph, output_ids(graph, Definitions(definitions)))
    } <= set(graph)
    run = new_run(graph)
    assert decode_run(encode_request(run.request), encode_run(run)).request.workflow.graph == json.loads(
        json.dumps(graph)
    )
    assert check_graph(with_replaced_texts(graph, lambda _node, _name, text: f"{text}b"))
    refusal_sentence({"node_errors": {node_id: {"errors": [{}]} for node_id in graph}}, graph, definitions)


def chain(size: int) -> dict[str, Any]:
    return {
        str(n): {"class_type": "X", "inputs": {"a": [str(n - 1), 0], "b": [str(n - 1), 1]} if n else {}}
        for n in range(size)
    }


def layers(size: int) -> dict[str, Any]:
    """Everything of a layer uses everything of the one below: as many paths as there could be."""
    return {
        f"{n}": {
            "class_type": "X",
            "inputs": {f"i{k}": [str(k), 0] for k in range(max(0, n // 20 * 20 - 20), n // 20 * 20)},
        }
        for n in range(size)
    }


def apart(size: int) -> dict[str, Any]:
    found: dict[str, Any] = {str(n): {"class_type": "X", "inputs": {}} for n in range(size)}
    return dict(random.Random(1).sample(list(found.items()), size))


def fan(size: int) -> dict[str, Any]:
    return {**apart(size), "all": {"class_type": "X", "inputs": {f"i{n}": [str(n), 0] for n in range(size)}}}


@pytest.mark.parametrize(
    ("shape", "size"), [(chain, 16_000), (layers, 6_000), (apart, 16_000), (fan, 16_000)]
)
def test_a_large_graph_is_planned_about_as_fast_as_it_is_read(
    shape: Callable[[int], dict[str, Any]], size: int
) -> None:
    """About a second; it would be twenty or more if the time grew with the square of the size."""
    graph = shape(size)
    began = time.process_time()
    assert len(planned_nodes(check_graph(graph), sink_ids(graph))) == len(graph)
    assert time.process_time() - began < 12.0
