"""Whatever is handed in as the editor's file, and whatever the instance says of its classes: a graph, or a
refusal; and soon."""

import json
from datetime import datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.errors import InvalidGraph, InvalidRequest
from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.editor.left_out import left_out_findings
from comfyui_workflow.workflows.graph import check_graph
from comfyui_workflow.workflows.input_formats import read_workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import with_inputs
from comfyui_workflow.workflows.resolve import widget_value_resolver
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.seeds import with_new_seeds
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, nested, numbers, objects, texts, values
from tests.workflows.test_pairs import DEFINITIONS, PAIRS

SMALL = sorted(
    (path for path in PAIRS.glob("*.ui.json") if path.stat().st_size < 12_000),
    key=lambda path: path.stat().st_size,
)
FILES = [json.loads(path.read_bytes()) for path in SMALL]
CLASSES = [
    "A",
    "Seed (rgthree)",
    "CustomCombo",
    "Power Lora Loader (rgthree)",
    "KSampler",
    "SaveImage",
    "LoadImage",
    "PrimitiveNode",
    "Reroute",
    "S",
    "T",
    "workflow>G",
]
OBJECT_INFO = {name: DEFINITIONS.object_info[name] for name in CLASSES if name in DEFINITIONS}

types = st.sampled_from(
    [
        "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "*", "INT,FLOAT", "MARKDOWN", "CURVE",
        "BOUNDING_BOX", "IMAGECOMPARE", "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3",
    ]
)  # fmt: skip
option_names = [
    "min", "max", "step", "round", "default", "options", "multiline", "dynamicPrompts", "forceInput",
    "remote", "control_after_generate", "image_upload", "widgetType", "multi_select", "template",
]  # fmt: skip
inner = st.fixed_dictionaries(
    {
        "required": st.dictionaries(
            st.sampled_from(["a", "b"]), st.tuples(types).map(list) | values, max_size=2
        )
    }
)
templates = st.fixed_dictionaries(
    {"input": inner | values},
    optional={"min": values, "max": values, "names": st.lists(texts | values, max_size=3), "prefix": values},
)
choices_of_options = st.lists(
    st.fixed_dictionaries({"key": st.sampled_from(["x", "y"]) | values, "inputs": inner | values}), max_size=3
)
options = st.dictionaries(
    st.sampled_from(option_names),
    values
    | types
    | st.booleans()
    | st.fixed_dictionaries({"route": st.just("/x"), "refresh_button": values})
    | templates
    | choices_of_options,
    max_size=5,
)
input_names = st.sampled_from(["a", "b", "seed", "filename_prefix", "sampler_name"])
inputs = st.dictionaries(
    input_names, st.tuples(types | st.lists(values, max_size=3), options).map(list) | values, max_size=4
)
classes = st.fixed_dictionaries(
    {
        "input": st.dictionaries(st.sampled_from(["required", "optional"]), inputs | values),
        "output": st.lists(types | values, max_size=2) | values,
    },
    optional={"input_order": st.dictionaries(st.sampled_from(["required", "optional"]), st.lists(texts))},
)
object_infos = st.one_of(
    st.dictionaries(st.sampled_from(CLASSES), classes | values, max_size=4),
    st.just(OBJECT_INFO).flatmap(mutations),
)

ids = st.integers(0, 5) | st.sampled_from([-10, -20, "1", "a:b", 2.0, None, -1, True]) | values
slots = st.integers(-2, 3) | values
file_inputs = st.fixed_dictionaries(
    {"name": input_names | texts, "type": types | values, "link": ids},
    optional={"widget": values | st.just({})},
)
promoted = st.lists(
    st.sampled_from(["-1", "0", "1", "2", "a", "b", "seed", "1: a", "value"]), min_size=1, max_size=3
)
nodes = st.fixed_dictionaries(
    {"id": ids, "type": st.sampled_from(CLASSES)},
    optional={
        "mode": st.sampled_from([0, 2, 4]) | values,
        "inputs": st.lists(file_inputs, max_size=3) | values,
        "outputs": st.lists(st.fixed_dictionaries({"type": types | values}), max_size=2) | values,
        "widgets_values": st.lists(values | st.sampled_from(["{a|b}", "%A.a%", "randomize"]), max_size=5)
        | values,
        "widgets_values_named": st.dictionaries(texts, values, max_size=3) | values,
        "title": values,
        "properties": st.fixed_dictionaries({"proxyWidgets": st.lists(promoted | values, max_size=4)})
        | values,
    },
)
links = st.tuples(ids, ids, slots, ids, slots, types).map(list) | values
ports = st.lists(
    st.fixed_dictionaries({"name": input_names, "type": types, "linkIds": st.lists(ids, max_size=3)}),
    max_size=3,
)
graphs = st.fixed_dictionaries({"nodes": st.lists(nodes, max_size=6), "links": st.lists(links, max_size=8)})
subgraphs = st.builds(
    lambda graph, name, ins, outs: {**graph, "id": name, "inputs": ins, "outputs": outs},
    graphs, st.sampled_from(["S", "T"]), ports | values, ports | values,
)  # fmt: skip
groups = st.fixed_dictionaries(
    {"nodes": st.lists(nodes, max_size=4) | values, "links": st.lists(links, max_size=5) | values},
    optional={
        "external": st.lists(st.tuples(slots, slots).map(list) | values, max_size=2) | values,
        "config": st.dictionaries(
            st.sampled_from(["0", "1"]),
            st.fixed_dictionaries({"input": st.dictionaries(input_names, objects)}) | values,
        )
        | values,
    },
)
files = st.builds(
    lambda graph, found, group, extra: {
        **graph,
        "definitions": {"subgraphs": found},
        "extra": {"groupNodes": {"G": group}, **extra},
    },
    graphs,
    st.lists(subgraphs | values, max_size=2),
    groups | values,
    st.fixed_dictionaries(
        {},
        optional={
            "ue_links": st.lists(
                st.fixed_dictionaries(
                    {"upstream": ids, "upstream_slot": slots, "downstream": ids, "downstream_slot": slots}
                )
                | values,
                max_size=3,
            )
            | values,
            "frontendVersion": st.sampled_from(["1.27.10", "1.58.1", "1.", "x"]) | values,
        },
    ),
)


def converted(file: Json, object_info: Any, mode: SeedMode = SeedMode.SAVED) -> dict[str, Any] | None:
    """The graph, which JSON can take; None when it was refused in words."""
    queueing = QueueContext(
        at=datetime(2025, 10, 12),
        choose=lambda choices: choices[-1],
        resolve_value=widget_value_resolver(mode, _lower_middle),
        draw=_lower_middle,
    )
    try:
        definitions = Definitions(object_info)
        graph = check_graph(convert(file, definitions, queueing))
        assert all(map(str, left_out_findings(file, definitions)))
    except InvalidGraph as error:
        assert str(error)
        return None
    assert json.dumps(graph, allow_nan=False)
    return graph


def _lower_middle(least: int, most: int) -> int:
    assert least <= most
    return (least + most) // 2


@effort(250)
@given(file=files | values, object_info=object_infos, mode=st.sampled_from(SeedMode))
@example(
    file={"nodes": [{"id": 1, "type": "A", "widgets_values": [nested(400)]}]},
    object_info={"A": {"input": {"required": {"a": ["STRING", {"multiline": True}]}}}},
    mode=SeedMode.SAVED,
)
@example(
    file={"nodes": [{"id": 1, "type": "A", "widgets_values": [nested(400)]}]},
    object_info={"A": {"input": {"required": {"a": [["x"], {"image_upload": True}]}}}},
    mode=SeedMode.SAVED,
)
def test_a_file_is_converted_or_refused(file: Json, object_info: Any, mode: SeedMode) -> None:
    converted(file, object_info, mode)


@effort(100)
@given(
    file=st.sampled_from(FILES).flatmap(lambda file: mutations(file, most=5)), mode=st.sampled_from(SeedMode)
)
def test_a_nearly_right_file_is_converted_or_refused(file: Json, mode: SeedMode) -> None:
    converted(file, DEFINITIONS.object_info, mode)


@effort(100)
@given(value=files | values | st.sampled_from(FILES).flatmap(mutations))
def test_whatever_is_given_is_a_workflow_or_is_refused(value: Json) -> None:
    try:
        workflow = read_workflow(value)
    except InvalidGraph as error:
        assert str(error)
        return
    assert workflow.graph or workflow.editor_file is value


graph_nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(CLASSES), "inputs": st.dictionaries(input_names, values, max_size=3)},
    optional={"_meta": st.fixed_dictionaries({"title": values | st.sampled_from(["a.b", "A", "1"])})},
)
names = texts | st.sampled_from(["1.a", "A.a", "a.b.a", "a.b", "1.", ".a", "KSampler.seed", "1.1", "2.seed"])


@effort(200)
@given(
    graph=st.dictionaries(st.sampled_from("123"), graph_nodes, min_size=1),
    named=st.dictionaries(names, values, max_size=3),
    object_info=object_infos,
)
def test_inputs_are_set_or_refused(graph: Any, named: Any, object_info: Any) -> None:
    try:
        found = with_inputs(graph, named, Definitions(object_info))
    except InvalidRequest as error:
        assert str(error)
        return
    assert set(found) == set(graph)


@effort(200)
@given(
    graph=st.dictionaries(st.sampled_from("123"), graph_nodes),
    least=numbers | values,
    most=numbers | values,
    value=numbers,
)
@example(graph={}, least=-(2**60), most=-(2**55), value=1)
@example(graph={}, least=0, most=10**400, value=1)
def test_a_seed_is_drawn_from_any_range(graph: Any, least: Any, most: Any, value: Any) -> None:
    info = {"A": {"input": {"required": {"seed": ["INT", {"min": least, "max": most}]}}}}
    seeds = {"s": {"class_type": "A", "inputs": {"seed": value}}}
    found = with_new_seeds({**graph, **seeds}, Definitions(info), _lower_middle)
    assert isinstance(found["s"]["inputs"]["seed"], int)
    for control in ("randomize", "increment", "decrement", "fixed"):
        file = {"nodes": [{"id": 1, "type": "A", "widgets_values": [value, control]}]}
        converted(file, info, SeedMode.CONTROL)
