"""The plan of a workflow over several instances."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from comfyui_workflow.distributed.plan import (
    Collected,
    ImageFile,
    Participant,
    Savers,
    gather_graph,
    make_plan,
)
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.graph import Graph

MASTER = Participant(participant_id="m", is_master=True)
WORKERS = (Participant(participant_id="a"), Participant(participant_id="b"))

GRAPH: dict[str, Any] = {
    "1": {"class_type": "DistributedSeed", "inputs": {"seed": 100}},
    "2": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": ["1", 0]},
    },
    "3": {"class_type": "DistributedCollector", "inputs": {"images": ["2", 0], "load_balance": False}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "all"}},
}


def test_each_participant_renders_with_a_seed_of_its_own() -> None:
    plan = make_plan(GRAPH, (MASTER, *WORKERS))
    assert [part.participant_id for part in plan.parts] == ["m", "a", "b"]
    assert [part.graph["2"]["inputs"]["color"] for part in plan.parts] == [100, 101, 102]
    assert [set(part.graph) for part in plan.parts] == [{"2", "5"}] * 3
    assert plan.parts[0].savers == {"3": Savers(images="5")}


def test_the_master_makes_the_result_of_all_pictures() -> None:
    plan = make_plan(GRAPH, (MASTER, *WORKERS))
    files = tuple(ImageFile(name=name, width=64, height=64) for name in ("0.png", "1.png"))
    graph = gather_graph(plan, {"3": Collected(images=files)})
    assert graph["4"]["inputs"]["images"] == ["7", 0]
    assert graph["7"]["inputs"] == {"image1": ["5", 0], "image2": ["6", 0]}
    assert graph["5"]["inputs"] == {"image": "0.png"}


def test_the_master_alone_runs_the_whole_workflow() -> None:
    plan = make_plan(GRAPH, (MASTER,))
    assert plan.parts == ()
    assert plan.gather["4"]["inputs"]["images"] == ["2", 0]
    assert plan.gather["2"]["inputs"]["color"] == 100


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def classes(graph: Graph) -> list[str]:
    return [each["class_type"] for each in graph.values()]


def test_only_what_a_collector_needs_is_rendered_by_workers() -> None:
    own = {"8": node("EmptyImage", batch_size=1), "9": node("SaveImage", images=["8", 0])}
    plan = make_plan({**GRAPH, **own}, (MASTER, *WORKERS))
    assert [set(part.graph) for part in plan.parts] == [{"2", "8", "9", "10"}, {"2", "10"}, {"2", "10"}]
    assert set(plan.gather) == {"3", "4"}
    assert plan.notices == ()


def test_what_nobody_renders_is_said() -> None:
    own = {"8": node("EmptyImage", batch_size=1), "9": node("SaveImage", images=["8", 0])}
    plan = make_plan({**GRAPH, **own}, (MASTER, *WORKERS), delegate_master=True)
    assert [part.seed_index for part in plan.parts] == [1, 2]
    assert plan.notices == (
        "The master renders nothing, so what no collector collects is not made: Node 9 (SaveImage)",
    )


def test_without_a_master_the_workers_render_all() -> None:
    assert make_plan(GRAPH, WORKERS).parts == make_plan(GRAPH, (MASTER, *WORKERS), delegate_master=True).parts


@pytest.mark.parametrize(
    ("graph", "participants", "notice"),
    [
        (GRAPH, (MASTER,), "No worker takes part, so the master renders the whole workflow"),
        (
            {"1": node("EmptyImage", batch_size=1), "2": node("SaveImage", images=["1", 0])},
            (MASTER, *WORKERS),
            "The workflow has no DistributedCollector, so the master renders it",
        ),
    ],
)
def test_a_master_that_cannot_delegate_renders(
    graph: Graph, participants: tuple[Participant, ...], notice: str
) -> None:
    plan = make_plan(graph, participants, delegate_master=True)
    assert plan.parts == ()
    assert plan.notices == (notice,)
    assert "SaveImage" in classes(plan.gather)


def test_ids_of_new_nodes_are_nobodys() -> None:
    graph = {
        "57:1": GRAPH["1"],
        "57:2": node("EmptyImage", color=["57:1", 0]),
        "57:3": node("DistributedCollector", images=["57:2", 0]),
        "900": node("SaveImage", images=["57:3", 0]),
        "²": node("PreviewImage", images=["57:2", 0]),
    }
    plan = make_plan(graph, (MASTER, *WORKERS))
    assert plan.parts[1].savers == {"57:3": Savers(images="901")}
    assert plan.parts[1].graph["901"]["inputs"]["filename_prefix"] == "distributed/57-3_1"
    files = (ImageFile(name="a.png", width=8, height=8),)
    assert set(gather_graph(plan, {"57:3": Collected(images=files)})) == {"900", "901"}


def test_a_collector_behind_another_one_begins_with_the_masters_pictures() -> None:
    graph = {
        **GRAPH,
        "5": node("ImageInvert", image=["3", 0]),
        "6": node("DistributedCollector", images=["5", 0]),
        "7": node("SaveImage", images=["6", 0]),
    }
    plan = make_plan(graph, (MASTER, *WORKERS))
    assert [set(part.savers) for part in plan.parts] == [{"3"}, {"3", "6"}, {"3", "6"}]
    assert classes(plan.parts[1].graph) == ["EmptyImage", "ImageInvert", "SaveImage", "SaveImage"]
    file = ImageFile(name="a.png", width=8, height=8)
    gathered = gather_graph(plan, {"3": Collected(images=(file,)), "6": Collected(images=(file,))})
    batch = gathered[gathered["7"]["inputs"]["images"][0]]
    assert batch["class_type"] == "ImageBatch"
    assert batch["inputs"]["image1"] == ["5", 0]
    delegated = make_plan(graph, (MASTER, *WORKERS), delegate_master=True)
    assert "5" not in delegated.gather


def test_a_collector_that_nobody_uses_saves_its_pictures() -> None:
    unused = {node_id: GRAPH[node_id] for node_id in ("1", "2", "3")}
    plan = make_plan(unused, (MASTER, *WORKERS))
    assert classes(plan.gather) == ["DistributedCollector", "SaveImage"]
    assert plan.notices == ("Node 3 (DistributedCollector): no node uses its pictures, so they are saved",)


def test_an_upscaler_runs_on_the_master_alone() -> None:
    graph = {
        **GRAPH,
        "5": node("UltimateSDUpscaleDistributed", upscaled_image=["2", 0], seed=["1", 0], padding=16),
        "6": node("DistributedCollector", images=["5", 0]),
        "7": node("SaveImage", images=["6", 0]),
    }
    plan = make_plan(graph, (MASTER, *WORKERS))
    assert [set(part.graph) for part in plan.parts] == [{"2", "5", "7", "8"}, {"2", "8"}, {"2", "8"}]
    plain = plan.parts[0].graph["5"]
    assert plain["class_type"] == "UltimateSDUpscaleNoUpscale"
    assert plain["inputs"]["seed"] == 100
    assert plain["inputs"]["tile_padding"] == 16
    assert plan.parts[0].graph["7"]["inputs"]["images"] == ["5", 0]
    assert plan.notices == ("Node 5 (UltimateSDUpscaleDistributed) runs on the master alone",)
    delegated = make_plan(graph, (MASTER, *WORKERS), delegate_master=True)
    assert delegated.parts == plan.parts
    assert "the master renders too" in delegated.notices[1].lower()
    assert {"5", "7"} <= set(make_plan(graph, WORKERS).gather)
    kept = make_plan(graph, (MASTER,), installed=frozenset({"UltimateSDUpscaleDistributed"}))
    assert kept.gather["5"]["class_type"] == "UltimateSDUpscaleDistributed"


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        ({}, "has no nodes"),
        ([], "not a JSON object"),
        ({"1": 3}, "node 1 is not an object"),
        ({"1": {"inputs": {}}}, "class_type"),
        ({"1": node("SaveImage", images=["2", 0])}, "does not exist"),
        (
            {"1": node("ImageInvert", image=["2", 0]), "2": node("DistributedCollector", images=["1", 0])},
            "has a cycle",
        ),
        ({"1": node("DistributedCollector", images=["1", 0])}, "has a cycle"),
        ({"1": node("DistributedCollector")}, r'Node 1 \(DistributedCollector\): input "images"'),
        ({"1": node("DistributedCollector", images="text")}, 'input "images" is not connected'),
        ({"1": node("DistributedSeed", seed=1)}, "nothing to run"),
        (
            {
                "1": node("DistributedEmptyImage", width=8, height=8),
                "2": node("DistributedCollector", images=["1", 0]),
            },
            "would collect an empty batch",
        ),
    ],
)
def test_nonsense_is_refused_with_a_sentence(graph: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        make_plan(graph, (MASTER, *WORKERS))


@pytest.mark.parametrize(
    ("participants", "sentence"),
    [
        ((), "No instance takes part"),
        ((MASTER, MASTER), "takes part twice"),
        ((WORKERS[0], WORKERS[0]), "takes part twice"),
        ((MASTER, Participant(participant_id="n", is_master=True)), "Only one instance can be the master"),
    ],
)
def test_participants_that_cannot_be(participants: tuple[Participant, ...], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        make_plan(GRAPH, participants)


def test_a_plan_is_the_same_in_every_process() -> None:
    """A restarted server makes the plan again."""
    graph = {**GRAPH}
    for name in "abcdefgh":
        graph[f"{name}3"] = node("DistributedCollector", images=["2", 0])
        graph[f"{name}4"] = node("SaveAudio", audio=[f"{name}3", 1])
        graph[f"{name}5"] = node("SaveImage", images=[f"{name}3", 0])
    program = (
        "import json, sys; from comfyui_workflow.distributed.plan import *;"
        "people = [Participant(participant_id=name, is_master=name == 'm') for name in ('m', 'a')];"
        "plan = make_plan(json.load(sys.stdin), people);"
        "file = Collected(images=(ImageFile(name='x', width=8, height=8),));"
        "print(plan.parts, gather_graph(plan, dict.fromkeys(plan.collectors, file)))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(graph),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert "SaveAudio" in printed.pop()


@pytest.mark.parametrize("count", [1, 500])
def test_long_chains_are_planned(count: int) -> None:
    chain = {f"c{number}": node("ImageInvert", image=[f"c{number - 1}", 0]) for number in range(1, count)}
    graph = {
        "c0": node("EmptyImage", batch_size=1),
        **chain,
        "3": node("DistributedCollector", images=[f"c{count - 1}", 0]),
        "4": node("SaveImage", images=["3", 0]),
    }
    assert len(make_plan(graph, (MASTER, *WORKERS)).parts[2].graph) == count + 1
