"""Inputs that no class declares, and special seeds."""

from typing import Any

import pytest

from tests.workflows.making import class_of, file, inputs_of, node, socket

PACK = {"python_module": "custom_nodes.pack"}
CLASSES = {
    "Video": class_of({"rate": ["FLOAT", {}], "format": [["mp4"]]}, **PACK),
    "Core": class_of({"n": ["INT", {}]}, python_module="comfy_extras.nodes_x"),
    "Dyn": class_of({"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a"}]}]}, **PACK),
    "Power Lora Loader (rgthree)": class_of({}, {"model": ["MODEL"]}, **PACK),
    "Power Primitive (rgthree)": class_of(**PACK),
    "Seed (rgthree)": class_of({"seed": ["INT", {"default": 0}]}, **PACK),
    "CustomCombo": class_of({"choice": ["COMBO", {"options": []}]}, python_module="comfy_extras.nodes_x"),
}


def sent(kind: str, values: Any, **other: Any) -> Any:
    return inputs_of(file(node(1, kind, values, **other)), CLASSES)["1"]


def test_what_a_pack_saves_by_name_goes_along() -> None:
    values = {"rate": 8, "format": "mp4", "crf": 19, "save_metadata": True, "pair": ["7", 0]}
    assert sent("Video", values) == {**values, "pair": {"__value__": ["7", 0]}}


def test_what_newer_editors_save_by_name_goes_along() -> None:
    named = {"rate": 8, "format": "mp4", "crf": 19, "control_after_generate": "fixed", "rate#1": 4}
    assert sent("Video", [8, "mp4", 19], widgets_values_named=named) == {
        "rate": 8,
        "format": "mp4",
        "crf": 19,
    }
    assert sent("Video", [8, "mp4", 19]) == {"rate": 8, "format": "mp4"}


def test_comfyuis_own_classes_take_what_they_declare_only() -> None:
    assert sent("Core", [1, "shown"], widgets_values_named={"n": 1, "preview": "shown"}) == {"n": 1}


def test_an_inner_input_of_an_option_that_is_not_there_does_not_go_along() -> None:
    assert sent("Dyn", ["b", 5], widgets_values_named={"mode": "b", "mode.n": 5}) == {"mode": "b"}


LORA = {"on": True, "lora": "a.safetensors", "strength": 0.5, "strengthTwo": None}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("Single Strength", {"on": True, "lora": "a.safetensors", "strength": 0.5}),
        ("Separate Model & Clip", {**LORA, "strengthTwo": 1}),
    ],
)
@pytest.mark.parametrize("header", [[], [None], [{}, {"type": "PowerLoraLoaderHeaderWidget"}]])
def test_the_loras_of_a_list_go_along(shown: str, expected: Any, header: Any) -> None:
    properties = {"Show Strengths": shown}
    found = sent(
        "Power Lora Loader (rgthree)", [*header, LORA, {**LORA, "on": False}, {}, ""], properties=properties
    )
    assert found["lora_1"] == expected
    assert found["lora_2"] == {**expected, "on": False}
    assert "lora_3" not in found


def test_a_node_that_declares_no_widget_has_names_for_its_row() -> None:
    assert sent("Power Primitive (rgthree)", ["INT", 5]) == {"type": "INT", "value": 5}
    assert sent("Power Primitive (rgthree)", None) == {}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (["b", -1, "a", "b", ""], {"choice": "b", "index": 1, "option1": "a", "option2": "b", "option3": ""}),
        (["b", -1, "a", "b"], {"choice": "b", "index": 1, "option1": "a", "option2": "b", "option3": ""}),
        (["x", 0, "a", "", "c"], {"choice": "x", "index": -1, "option1": "a", "option2": ""}),
        (["a", "a", "b", ""], {"choice": "a", "index": 0, "option1": "a", "option2": "b", "option3": ""}),
        ([], {"index": -1, "option1": ""}),
    ],
)
def test_a_list_that_the_user_wrote_has_its_options_and_the_index(row: Any, expected: Any) -> None:
    assert sent("CustomCombo", row) == expected


@pytest.mark.parametrize("seed", [-1, -2, -3])
def test_special_seeds_are_drawn_between_the_bounds_of_the_node(seed: int) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(least: int, most: int) -> int:
        drawn.append((least, most))
        return least

    seeds = file(
        node(1, "Seed (rgthree)", [seed, "", "", ""], properties={"randomMin": 5, "randomMax": 9}),
        node(2, "Seed (rgthree)", [seed], properties={"randomMin": "x", "randomMax": 2**60}),
        node(3, "Seed (rgthree)", [77]),
    )
    found = inputs_of(seeds, CLASSES, draw=draw)
    assert [found[key]["seed"] for key in "123"] == [5, 0, 77]
    assert drawn == [(5, 9), (0, 2**50)]
    assert inputs_of(seeds, CLASSES)["1"] == {"seed": seed}


def test_a_drawn_seed_is_never_a_special_one() -> None:
    negative = node(1, "Seed (rgthree)", [-1], properties={"randomMin": -9, "randomMax": 5})
    assert inputs_of(file(negative), CLASSES, draw=lambda least, most: -2)["1"] == {"seed": 0}


def test_a_linked_seed_is_not_drawn() -> None:
    linked = node(2, "Seed (rgthree)", [-1], inputs=[socket("seed", 1, "INT", widget=True)])
    found = inputs_of(file(node(1, "Core", [1]), linked, links=[(1, 1, 0, 2, 0)]), CLASSES, draw=max)
    assert found["2"] == {"seed": ["1", 0]}


GONE = {"keep": ["INT", {"default": 1}]}


def test_the_link_of_a_widget_that_the_class_has_no_longer_is_left_out() -> None:
    classes = {**CLASSES, "New": class_of(GONE, **PACK)}
    given = [socket("keep", 1, "INT", widget=True), socket("gone", 2, "INT", widget=True), socket("more", 3)]
    workflow = file(
        node(1, "Core", [1]),
        node(2, "New", [1, 5], inputs=given),
        links=[(1, 1, 0, 2, 0), (2, 1, 0, 2, 1), (3, 1, 0, 2, 2)],
    )
    assert inputs_of(workflow, classes)["2"] == {"keep": ["1", 0], "more": ["1", 0]}
    named = node(2, "New", {"keep": 1, "gone": 5}, inputs=given)
    assert inputs_of({**workflow, "nodes": [workflow["nodes"][0], named]}, classes)["2"]["gone"] == ["1", 0]


def test_a_list_that_inserts_into_a_text_is_set_back_to_its_first_entry() -> None:
    picker = class_of({"text": ["STRING", {}], "Select to add LoRA": [["Select the LoRA", "a"]]}, **PACK)
    workflow = file(node(1, "Detailer", ["x", "sub/b.safetensors"]))
    assert inputs_of(workflow, {"Detailer": picker})["1"] == {
        "text": "x",
        "Select to add LoRA": "Select the LoRA",
    }


def test_a_name_that_was_saved_with_its_picture_is_the_name() -> None:
    loader = class_of({"lora_name": ["COMBO", {"options": ["a", "b"]}]}, **PACK)
    for value in ({"content": "b", "image": None}, "b"):
        assert inputs_of(file(node(1, "Loader", [value])), {"Loader": loader})["1"] == {"lora_name": "b"}


@pytest.mark.parametrize("kind", ["Display Any (rgthree)", "Display Int (rgthree)"])
def test_what_a_node_has_shown_is_not_sent(kind: str) -> None:
    assert inputs_of(file(node(1, kind, ["42"])), {kind: class_of(**PACK)})["1"] == {"output": ""}
