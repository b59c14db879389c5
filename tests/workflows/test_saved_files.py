"""Classes that number their files, and the check that a picture was made by a given node."""

import time
from typing import Any

import pytest

from comfyui_workflow.comfyui.output_names import FileNaming
from comfyui_workflow.workflows.saved_files import SAVED_AGAIN, saved_again, was_saved_by_node

ONE, TWO = ("output", "", "a_00001.png"), ("output", "", "a_00002.png")


def test_what_nobody_knows_is_learned_from_two_prompts() -> None:
    names = FileNaming()
    assert names.is_numbering("SaveImage")
    assert not names.is_numbering("Own")
    names.learn("Own", "p1", [ONE])
    assert not names.is_numbering("Own")
    names.learn("Own", "p1", [ONE])
    assert not names.is_numbering("Own"), "the same prompt, told again"
    names.learn("Own", "p2", [TWO])
    assert names.is_numbering("Own")


def test_a_name_that_comes_back_is_one_that_is_written_over_for_good() -> None:
    names = FileNaming()
    for prompt_id, file in (("p1", ONE), ("p2", TWO), ("p3", ONE)):
        names.learn("Own", prompt_id, [file])
    assert not names.is_numbering("Own")
    names.learn("Own", "p4", [("output", "", "new.png")])
    assert not names.is_numbering("Own")


def test_a_node_that_saves_nothing_overwrites_nothing() -> None:
    names = FileNaming()
    names.learn("ShowText", "p1", [])
    assert names.is_numbering("ShowText")


def graph(seed: Any = 7, image: Any = "photo.png", ids: str = "123", other: int = 1) -> dict[str, Any]:
    load, sample, save = ids
    return {
        load: {"class_type": "LoadImage", "inputs": {"image": image}},
        sample: {"class_type": "Sample", "inputs": {"image": [load, 0], "seed": seed}},
        save: {"class_type": "Save", "inputs": {"images": [sample, 0], "name": "final"}},
        "9": {"class_type": "Other", "inputs": {"value": other}},
    }


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (graph(), True),
        (graph(seed="7"), True),
        (graph(seed=7.9), True),
        (graph(ids="abc"), True),
        (graph(other=2), True),
        (graph(image="photo-0123456789ab.png"), True),
        (graph(seed=8), False),
        (graph(seed=2**53 + 1), False),
        ({"1": {"class_type": "Save", "inputs": {"images": 1, "name": "final"}}}, False),
        ({"9": {"class_type": "Other", "inputs": {}}}, None),
        ({}, None),
        ({"1": 5}, None),
        ({"1": {"class_type": "Save"}}, None),
        ({"1": {"class_type": "Save", "inputs": {"images": ["1", 0]}}}, None),
    ],
)
def test_a_graph_in_a_picture_is_compared_up_to_what_was_saved(found: Any, is_ours: bool | None) -> None:
    assert was_saved_by_node(graph(), "3", found, frozenset({"photo.png"})) is is_ours


def test_numbers_are_compared_to_the_last_digit() -> None:
    assert was_saved_by_node(graph(seed=2**53), "3", graph(seed=2**53 + 1), frozenset()) is False
    assert was_saved_by_node(graph(), "expanded:3", graph(), frozenset()) is None


def test_a_graph_of_a_stranger_is_read_in_no_time() -> None:
    """Ten thousand nodes of the class, each linked to the previous one."""
    strange = {
        str(number): {"class_type": "Save", "inputs": {"a": [str(number - 1), 0], "b": [str(number - 1), 0]}}
        for number in range(10_000)
    }
    began_s = time.process_time()
    was_saved_by_node(graph(), "3", strange, frozenset())
    assert time.process_time() - began_s < 10


def test_a_node_that_saves_again_is_the_same_node_with_one_more_input() -> None:
    again = saved_again(graph(), ["3", "gone"], "run/1")
    assert {name for name in again if again[name] != graph()[name]} == {"3"}
    assert again["3"]["inputs"] == {**graph()["3"]["inputs"], SAVED_AGAIN: "run/1"}
    assert was_saved_by_node(graph(), "3", again, frozenset()) is True
    assert saved_again(graph(), [], "run/1") == graph()
