"""The plan of a workflow over several instances."""

from typing import Any

from comfyui_workflow.distributed.plan import (
    Collected,
    ImageFile,
    Participant,
    Savers,
    gather_graph,
    make_plan,
)

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
