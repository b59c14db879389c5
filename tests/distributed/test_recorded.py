"""Plans render what ComfyUI-Distributed rendered for the same requests. See recorded/README.md."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.distributed.plan import Participant, Plan, make_plan, wants_load_balance
from comfyui_workflow.errors import InvalidRequest
from tests.distributed.rendering import render
from tests.sandbox.running_comfyui import RunningComfyUI

RECORDED = Path(__file__).parent / "recorded" / "runs.jsonl"
LIVE = ("1", "2")
"""The workers that answered, in the order of the configuration."""

BETTER = {
    "differing sizes keep the master's": {"4": [["4x4", "RGB", "000001"]] * 2},
    "differing sizes, delegated": {"4": [["8x4", "RGB", "000001"]] * 2},
    "alpha on all": {"4": [["4x4", "RGBA", "0003e84c"], ["4x4", "RGBA", "0003e94c"]]},
    "alpha, delegated": {"4": [["4x4", "RGBA", "0003e94c"]]},
    "behind the collector, a second source, delegated": {
        "4": [["4x4", "RGB", "0003e9"], ["4x4", "RGB", "000003"]]
    },
    "a collector without users": {
        "5": [["4x4", "RGB", "0003e8"]],
        "6": [["4x4", "RGB", "0003e8"], ["4x4", "RGB", "0003e9"]],
    },
    "only a collector": {"4": [["4x4", "RGB", "0003e8"], ["4x4", "RGB", "0003e9"]]},
    # the master's own picture is rounded to 8 bits too, before it is inverted
    "rounding": {"4": [["4x4", "RGB", "191919"]] * 2, "7": [["4x4", "RGB", "e6e6e6"]] * 2},
}
"""Where the plugin loses pictures or an alpha channel, or fails, and the plan does not."""


@cache
def recorded() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in map(json.loads, RECORDED.read_text().splitlines())}


def has_sound(name: str) -> bool:
    """The sandbox renders no sounds."""
    return "EmptyAudio" in json.dumps(recorded()[name]["request"]) or name == "no audio"


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningComfyUI]:
    with RunningComfyUI(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def plan_of(entry: dict[str, Any]) -> Plan:
    """Makes the plan of a recorded request; with the participant that the plugin chose, if it chose one."""
    request = entry["request"]
    master = Participant(participant_id="master", is_master=True)
    workers = [Participant(participant_id=each) for each in LIVE if each in request["enabled_worker_ids"]]
    delegated = request.get("delegate_master", False)
    if wants_load_balance(request["prompt"]):
        delegated = entry["answer"]["worker_count"] == 1
        workers = workers[:1] if delegated else []
    return make_plan(request["prompt"], [master, *workers], delegate_master=delegated)


@pytest.mark.parametrize("name", [name for name in recorded() if not has_sound(name)])
def test_a_plan_makes_what_the_plugin_makes(comfyui: RunningComfyUI, name: str) -> None:
    entry = recorded()[name]
    if name == "an empty image saved":
        assert entry["ended"] == "error"
        with pytest.raises(InvalidRequest, match=r'Node 6 \(SaveImage\): input "images" gets an empty batch'):
            plan_of(entry)
        return
    made = render(comfyui, plan_of(entry))
    if name in BETTER:
        short = {
            node_id: [[f"{p['size'][0]}x{p['size'][1]}", p["mode"], p["pixels"]] for p in pictures]
            for node_id, pictures in made.items()
        }
        assert short == BETTER[name]
        assert made != entry.get("outputs")
    else:
        assert made == entry["outputs"]
        assert (
            len([part for part in plan_of(entry).parts if part.seed_index]) == entry["answer"]["worker_count"]
        )


@pytest.mark.parametrize("name", [name for name in recorded() if has_sound(name)])
def test_sounds_are_planned(name: str) -> None:
    plan = plan_of(recorded()[name])
    has_input = "audio" in recorded()[name]["request"]["prompt"]["3"]["inputs"]
    assert [part.savers["3"].audio is not None for part in plan.parts] == [has_input] * 2
