"""Plans of random graphs: sound where the graph is one, refused with a sentence where it is none."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.distributed.nodes import distributed_nodes, downstream, nodes_of, upstream
from comfyui_workflow.distributed.plan import (
    AudioFile,
    Collected,
    ImageFile,
    Participant,
    Plan,
    gather_graph,
    gather_notices,
    make_plan,
)
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.graph import Graph, check_graph, sink_ids
from tests.fuzz.effort import effort

INPUTS: dict[str, tuple[str, ...]] = {
    "DistributedSeed": ("seed",),
    "DistributedValue": ("default_value", "worker_values"),
    "DistributedModelName": ("text",),
    "DistributedEmptyImage": ("width", "height"),
    "ImageBatchDivider": ("images", "divide_by"),
    "AudioBatchDivider": ("audio", "divide_by"),
    "DistributedCollector": ("images", "audio", "load_balance"),
    "UltimateSDUpscaleDistributed": ("upscaled_image", "seed"),
    "EmptyImage": ("width", "height", "batch_size", "color"),
    "EmptyAudio": ("duration", "sample_rate"),
    "ImageBatch": ("image1", "image2"),
    "ImageFromBatch": ("image", "batch_index", "length"),
    "ImageInvert": ("image",),
    "PrimitiveInt": ("value",),
    "SaveImage": ("images", "filename_prefix"),
    "SaveAudio": ("audio",),
    "Custom": ("a", "b"),
}
REPLACED = {name for name in INPUTS if "Divider" in name or "Distributed" in name}
IMAGES = ("EmptyImage", "ImageBatch", "ImageInvert", "ImageFromBatch", "DistributedCollector", "Custom")

values = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.sampled_from(['{"_type": "INT", "1": "7", "2": "x"}', '{"_type": "FLOAT", "1": "1e999"}', "[]", "{"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A graph whose links mostly lead to earlier nodes; some lead nowhere, or in circles."""
    graph: dict[str, Any] = {}
    is_wild = draw(st.booleans())
    for number in range(draw(st.integers(1, 14))):
        class_type = draw(st.sampled_from(sorted(INPUTS)))
        inputs = {name: draw(_input(graph, name, is_wild=is_wild)) for name in INPUTS[class_type]}
        graph[draw(st.sampled_from([str(number), f"{number}:1", f"n{number}"]))] = {
            "class_type": class_type,
            "inputs": inputs,
        }
    return graph


def _input(graph: dict[str, Any], name: str, *, is_wild: bool) -> st.SearchStrategy[Any]:
    of_images = [node_id for node_id, node in graph.items() if node["class_type"] in IMAGES]
    sources = of_images if "image" in name and of_images else sorted(graph)
    slots = st.sampled_from([0, 0, 0, 1, 2, 9, 10, -1, 0.0])
    anywhere = st.tuples(st.sampled_from([*sources, "404", "n3", "5"]), slots).map(list)
    if is_wild:
        return st.one_of(values, anywhere)
    if "image" in name or name in ("audio", "a", "b"):
        links = st.tuples(st.sampled_from(sources), st.sampled_from([0, 0, 0, 1])).map(list)
        return links if sources else st.just(1)
    return st.integers(1, 12)


people = st.builds(
    lambda has_master, workers: (
        [Participant(participant_id="m", is_master=True)] * has_master
        + [Participant(participant_id=f"w{number}") for number in range(workers)]
    ),
    st.booleans(),
    st.integers(0, 3),
)
installed = st.sets(st.sampled_from(["ComfyMathExpression"])).map(frozenset)


@effort(60)
@given(graphs(), people, st.booleans(), installed)
def test_a_plan_is_sound_or_refused_with_a_sentence(
    graph: dict[str, Any], participants: list[Participant], delegated: bool, classes: frozenset[str]
) -> None:
    before = json.dumps(graph)
    try:
        plan = make_plan(graph, participants, delegate_master=delegated, installed=classes)
    except InvalidRequest as refused:
        assert len(str(refused)) > 10
        return
    assert json.dumps(graph) == before
    assert plan == make_plan(graph, participants, delegate_master=delegated, installed=classes)
    for part in plan.parts:
        check_plain(part.graph)
        check_pruned(graph, part.graph, {node for each in part.savers.values() for node in saved_by(each)})
    check_participants(plan, participants, delegated=delegated)
    check_gathered(graph, plan)


def saved_by(savers: Any) -> set[str]:
    return {node_id for node_id in (savers.images, savers.audio) if node_id}


def check_plain(graph: Graph) -> None:
    check_graph(graph)  # every link leads to a node, and none in a circle
    assert not nodes_of(graph, *REPLACED)
    json.dumps(graph, allow_nan=False)


def check_pruned(whole: Graph, part: Graph, savers: set[str]) -> None:
    """All nodes are needed for a saver, or for what no collector collects."""
    assert savers <= part.keys()
    own = set(sink_ids(whole)) - downstream(whole, nodes_of(whole, "DistributedCollector"))
    assert upstream(part, savers | (own & part.keys())) == part.keys()


def check_participants(plan: Plan, participants: list[Participant], *, delegated: bool) -> None:
    if not plan.parts:
        return
    workers = [each.participant_id for each in participants if not each.is_master]
    masters = [each.participant_id for each in participants if each.is_master]
    rendering = [part.participant_id for part in plan.parts]
    assert rendering in (masters + workers, workers if delegated else masters + workers)
    indexes = [part.seed_index for part in plan.parts]
    assert indexes == ([0] * (len(rendering) > len(workers))) + list(range(1, len(workers) + 1))


def check_gathered(whole: Graph, plan: Plan) -> None:
    files = tuple(
        ImageFile(name=f"{number}.png", width=8, height=8, count=2, has_alpha=number == 1)
        for number in range(3)
    )
    sounds = (AudioFile(name="a.flac", channels=1, sample_rate=8000, samples=100),) * 2
    collected = {collector: Collected(images=files, audio=sounds) for collector in plan.collectors}
    try:
        graph = gather_graph(plan, collected)
    except InvalidRequest as refused:  # a divider has no pictures for all of its outputs
        assert "empty batch" in str(refused)
        return
    check_plain(graph)
    assert gather_notices(plan, collected) == () or plan.collectors
    if plan.parts:
        behind = downstream(whole, distributed_nodes(whole))
        sinks = {node_id for node_id in sink_ids(whole) if node_id in behind}
        assert sinks - set(nodes_of(whole, *REPLACED)) <= graph.keys()
