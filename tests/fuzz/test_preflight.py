"""Whatever the graph, whatever the instance says of its classes: there is a verdict, and it is soon there."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.workflows.findings import errors
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles, referenced_files
from comfyui_workflow.workflows.validation.preflight import Verdict, preflight
from tests.fuzz.effort import effort
from tests.fuzz.test_graphs import apart, chain, fan, layers
from tests.fuzz.values import Json, mutations, nested, texts, values
from tests.workflows.test_preflight import OBJECT_INFO, VERDICTS

GRAPHS = [recorded["graph"] for recorded in VERDICTS]
CLASSES = ["A", "B", "LoadLatent"]
DYNAMIC = ["COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3"]
types = st.sampled_from(
    ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "*", "INT,FLOAT", "A_V3", *DYNAMIC]
)
inner = st.dictionaries(
    st.sampled_from(["required", "optional"]),
    st.dictionaries(st.sampled_from("ab"), st.tuples(types, st.just({})).map(list) | values),
)
dynamic_options = st.fixed_dictionaries(
    {},
    optional={
        "options": st.lists(st.fixed_dictionaries({"key": st.sampled_from("ab") | values, "inputs": inner})),
        "template": st.fixed_dictionaries(
            {"input": inner},
            optional=dict.fromkeys(("prefix", "names", "min", "max"), values),
        ),
    },
)
options = dynamic_options | st.dictionaries(
    st.sampled_from(["min", "max", "options", "image_upload", "multiselect", "remote", "default"]), values
)
inputs = st.dictionaries(
    st.sampled_from(["a", "b", "latent"]),
    st.tuples(types | st.lists(values, max_size=3), options).map(list) | values,
    max_size=3,
)
classes = st.fixed_dictionaries(
    {
        "input": st.dictionaries(st.sampled_from(["required", "optional", "hidden"]), inputs | values),
        "output": st.lists(types | values, max_size=2) | values,
        "output_node": st.booleans() | values,
        "python_module": st.sampled_from(["nodes", "comfy_extras.x", "custom_nodes.x"]) | values,
    },
    optional={
        "input_order": st.dictionaries(st.sampled_from(["required", "optional"]), st.lists(texts)),
        "is_input_list": st.booleans(),
    },
)
links = st.tuples(st.sampled_from("1239"), st.integers(-2, 2) | st.booleans() | st.floats()).map(list)
nodes = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from([*CLASSES, "Unknown"]) | values,
        "inputs": st.dictionaries(
            st.sampled_from(["a", "b", "latent", "extra", "a.a", "a.b", "b.a", "a.a0", "a.a.a"]),
            links | st.sampled_from("ab") | values | st.fixed_dictionaries({"__value__": links | values}),
        )
        | values,
    },
    optional={"_meta": values},
)
files = st.builds(
    KnownFiles,
    provided=st.frozensets(texts, max_size=3),
    found=st.frozensets(st.tuples(st.sampled_from(["input", "output"]), texts), max_size=3),
    is_asked=st.booleans(),
)


def judge(graph: Json, object_info: Any, known: KnownFiles) -> Verdict:
    """Twice the same, as JSON can take it, and no error in what would run."""
    definitions = Definitions(object_info)
    verdict = preflight(graph, definitions, files=known)
    assert verdict == preflight(graph, definitions, files=known)
    assert verdict.would_run == (not errors(verdict.findings))
    assert json.dumps([finding.document() for finding in verdict.findings])
    assert all(len(finding.message) < 10_000 for finding in verdict.findings)
    assert all(named.folder in ("input", "output", "temp") for named in referenced_files(graph, definitions))
    return verdict


@effort(250)
@given(
    graph=st.dictionaries(st.sampled_from("1234"), nodes, max_size=4) | values,
    object_info=st.dictionaries(st.sampled_from(CLASSES), classes | values, max_size=3),
    known=files,
)
@example(graph={"1": {"class_type": "A", "inputs": {"a": nested(250)}}}, object_info={}, known=KnownFiles())
@example(
    graph={"1": {"class_type": "A", "inputs": {"a": {"__value__": nested(250)}}}},
    object_info={
        "A": {"input": {"required": {"a": [[nested(250)]]}}, "output": [[nested(250)]], "output_node": True}
    },
    known=KnownFiles(),
)
@example(
    graph={"1": {"class_type": "A", "inputs": {"a": 10**400}}},
    object_info={"A": {"input": {"required": {"a": ["FLOAT", {"min": 1}]}}}},
    known=KnownFiles(),
)
def test_there_is_a_verdict(graph: Json, object_info: Any, known: KnownFiles) -> None:
    judge(graph, object_info, known)


@effort(150)
@given(graph=st.sampled_from(GRAPHS).flatmap(mutations), known=files)
def test_there_is_a_verdict_on_nearly_right_graphs(graph: Json, known: KnownFiles) -> None:
    judge(graph, OBJECT_INFO, known)


CLASS = {
    "input": {"required": {"a": ["T"]}, "optional": {"b": ["U"]}},
    "output": ["T", "U"],
    "output_node": True,
    "python_module": "nodes",
}


def ring(size: int) -> dict[str, Any]:
    return {str(n): {"class_type": "X", "inputs": {"a": [str((n + 1) % size), 0]}} for n in range(size)}


def rings(size: int) -> dict[str, Any]:
    links = {n: [str(n ^ 1), 0] for n in random.Random(1).sample(range(size), size)}
    return {str(n): {"class_type": "X", "inputs": {"a": link, "z": ["0", 0]}} for n, link in links.items()}


@pytest.mark.parametrize("shape", [chain, layers, apart, fan, ring, rings])
def test_a_large_graph_is_judged_about_as_fast_as_it_is_read(shape: Callable[[int], dict[str, Any]]) -> None:
    """Less than half a second; it would be far more if the time grew with the square of the size."""
    graph = shape(5_000)
    began = time.process_time()
    assert preflight(graph, Definitions({"X": CLASS}), files=KnownFiles()).findings
    assert time.process_time() - began < 5.0
