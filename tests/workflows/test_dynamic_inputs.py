"""Dynamic inputs of the V3 schema: their inner inputs, values and links."""

from typing import Any

import pytest

from comfyui_workflow.workflows.dynamic_inputs import Autogrow, inner_inputs, option_keys
from tests.workflows.making import class_of, definition, file, inputs_of, node, socket

CONTROLLED = {"default": 7, "control_after_generate": True}
INNER = {"key": "deep", "inputs": {"required": {"seed": ["INT", CONTROLLED], "c": [["p", "q"]]}}}
COMBO: Any = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "options": [
            {
                "key": "one",
                "inputs": {"required": {"n": ["INT", {"default": 1}]}, "optional": {"t": ["STRING"]}},
            },
            {
                "key": "two",
                "inputs": {
                    "required": {
                        "image": ["IMAGE"],
                        "inner": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "flat"}, INNER]}],
                    }
                },
            },
            {"key": "none", "inputs": {}},
            {
                "key": "many",
                "inputs": {"required": {"refs": ["COMFY_AUTOGROW_V3", {"template": {}}], "hq": ["BOOLEAN"]}},
            },
        ]
    },
]
GROW: Any = [
    "COMFY_AUTOGROW_V3",
    {"template": {"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image", "min": 1, "max": 4}},
]
NAMED: Any = [
    "COMFY_AUTOGROW_V3",
    {"template": {"input": {"required": {"f": ["FLOAT", {"default": 0.5}]}}, "names": ["a", "b"], "min": 0}},
]
CLASSES = {
    "Make": class_of({"w": ["INT", {"default": 64}]}, output=["IMAGE"]),
    "Dyn": class_of({"mode": COMBO, "after": ["INT", {"default": 3}]}, output=["IMAGE"]),
    "Grow": class_of({"images": GROW, "n": ["INT", {"default": 2}], "named": NAMED}, output=["IMAGE"]),
}
MAKE = node(1, "Make", [8])


def dyn(values: Any, *inputs: Any, **other: Any) -> Any:
    return node(5, "Dyn", values, inputs=list(inputs), **other)


def sent(*nodes: Any, links: Any = ()) -> Any:
    return inputs_of(file(MAKE, *nodes, links=links), CLASSES)["5"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (["one", 4, "x", 9], {"mode": "one", "mode.n": 4, "mode.t": "x", "after": 9}),
        (["one"], {"mode": "one", "mode.n": 1, "mode.t": "", "after": 3}),
        ([], {"mode": "one", "mode.n": 1, "mode.t": "", "after": 3}),
        ([None, 4], {"mode": "one", "mode.n": 4, "mode.t": "", "after": 3}),
        (["none", 9], {"mode": "none", "after": 9}),
        (["gone", 9], {"mode": "gone", "after": 9}),
        (["two", "flat", 9], {"mode": "two", "mode.inner": "flat", "after": 9}),
        (
            ["two", "deep", 5, "fixed", "q", 9],
            {"mode": "two", "mode.inner": "deep", "mode.inner.seed": 5, "mode.inner.c": "q", "after": 9},
        ),
        (["many", True, 9], {"mode": "many", "mode.hq": True, "after": 9}),
    ],
)
def test_the_values_of_an_option_follow_its_choice(row: Any, expected: Any) -> None:
    assert sent(dyn(row)) == expected


def test_an_inner_seed_has_a_mode_only_if_the_class_says_so() -> None:
    """The name alone decides for inputs that are not inner ones."""
    option = {"key": "a", "inputs": {"required": {"seed": ["INT", {}], "t": ["STRING", {}]}}}
    classes = {"X": class_of({"m": ["COMFY_DYNAMICCOMBO_V3", {"options": [option]}]})}
    assert inputs_of(file(node(1, "X", ["a", 5, "x"])), classes)["1"] == {"m": "a", "m.seed": 5, "m.t": "x"}


def test_values_by_name_are_used_where_there_is_no_list() -> None:
    named = {"mode": "one", "mode.n": 6, "after": 8}
    assert sent(dyn([], widgets_values_named=named)) == {
        "mode": "one", "mode.n": 6, "mode.t": "", "after": 8
    }  # fmt: skip
    assert sent(dyn(["none", 9], widgets_values_named=named)) == {"mode": "none", "after": 9}
    assert sent(dyn({"mode": "none", "after": 7})) == {"mode": "none", "after": 7}


def test_an_inner_input_can_be_linked_and_only_that_of_the_chosen_option() -> None:
    link = [(1, 1, 0, 5, 0)]
    found = sent(dyn(["two", "flat", 9], socket("mode.image", 1, "IMAGE")), links=link)
    assert found["mode.image"] == ["1", 0]
    assert "mode.image" not in sent(dyn(["one", 4, "x", 9], socket("mode.image", 1, "IMAGE")), links=link)


def test_a_primitive_reaches_an_inner_widget_and_chooses_an_option() -> None:
    given = node(7, "PrimitiveNode", [6])
    found = sent(
        given, dyn(["one", 4, "x", 9], socket("mode.n", 1, "INT", widget=True)), links=[(1, 7, 0, 5, 0)]
    )
    assert found == {"mode": "one", "mode.n": 6, "mode.t": "x", "after": 9}
    chosen = node(7, "PrimitiveNode", ["two"])
    found = sent(chosen, dyn(["one", 4, "x", 9], socket("mode", 1, widget=True)), links=[(1, 7, 0, 5, 0)])
    assert found == {"mode": "two", "mode.inner": "flat", "after": 9}


def test_the_elements_of_an_autogrow_are_linked_by_name() -> None:
    inputs = [socket(f"images.image{at}", at + 1, "IMAGE") for at in range(3)]
    grown = node(5, "Grow", [9, 1.5], inputs=[*inputs, socket("images.image3", None)])
    found = sent(grown, links=[(at + 1, 1, 0, 5, at) for at in range(3)])
    assert found == {
        "images.image0": ["1", 0],
        "images.image1": ["1", 0],
        "images.image2": ["1", 0],
        "named.a": 9,
        "n": 1.5,
    }


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ({"prefix": "p", "min": 2, "max": 3}, ["g.p0", "g.p1", "g.p2"]),
        ({"names": ["x", "y"], "min": 0}, ["g.x", "g.y"]),
        ({"names": ["x", 5]}, ["g.x", "g."]),
        ({"prefix": 4, "max": "many", "min": None}, ["g.0", "g.1", "g.2"]),
    ],
)
def test_the_names_of_elements(template: Any, names: list[str]) -> None:
    declared = definition(
        g=["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"i": ["IMAGE"]}}, **template}}]
    )
    grow = Autogrow(declared.inputs[0])
    assert [each.name for at in range(3) for each in grow.element(at)] == names
    assert grow.present(names[:1]) == ([0] if names[0] != "g." else [])


@pytest.mark.parametrize("options", [None, 5, [], ["x"], [{"key": 5}], [{"key": "a", "inputs": 7}]])
def test_what_is_no_option_is_none(options: Any) -> None:
    combo = definition(c=["COMFY_DYNAMICCOMBO_V3", {"options": options}]).inputs[0]
    assert option_keys(combo) == (["a"] if options == [{"key": "a", "inputs": 7}] else [])
    assert list(inner_inputs(combo, {"c": "a"})) == []


def test_the_inner_inputs_that_a_graph_has() -> None:
    names = [
        each.name for each in inner_inputs(definition(m=COMBO).inputs[0], {"m": "two", "m.inner": "deep"})
    ]
    assert names == ["m.image", "m.inner", "m.inner.seed", "m.inner.c"]


@pytest.mark.parametrize(("slot", "source"), [(0, ["1", 0]), (1, ["2", 0])])
def test_a_bypassed_match_type_passes_on_what_has_the_same_place(slot: int, source: Any) -> None:
    match: Any = ["COMFY_MATCHTYPE_V3", {"template": {"allowed_types": "*"}}]
    classes = {
        **CLASSES,
        "Switch": class_of({"off": match, "on": match}, output=["COMFY_MATCHTYPE_V3", "COMFY_MATCHTYPE_V3"]),
        "Show": class_of({"images": ["IMAGE"]}),
    }
    switch = node(5, "Switch", mode=4, inputs=[socket("off", 2), socket("on", 3)])
    show = node(9, "Show", inputs=[socket("images", 1, "IMAGE")])
    links = [(1, 5, slot, 9, 0), (2, 1, 0, 5, 0), (3, 2, 0, 5, 1)]
    found = inputs_of(file(MAKE, node(2, "Make", [9]), switch, show, links=links), classes)
    assert found["9"] == {"images": source}


@pytest.mark.parametrize(
    ("kind", "saved", "expected"),
    [
        ("COLORS", ["#fff"], {"__value__": ["#fff"]}),
        ("BOUNDING_BOXES", [], {"__value__": []}),
        ("RANGE", {"min": 1}, {"min": 1}),
        ("CURVE", {"points": []}, {"__type__": "CURVE", "__value__": {"points": []}}),
        ("CURVE", None, None),
        ("PAINTER", "a.png", "a.png"),
        ("COMPOSITOR", {"a": 1}, {"a": 1}),
    ],
)
def test_the_newer_widgets_have_one_value_in_the_row(kind: str, saved: Any, expected: Any) -> None:
    classes = {"X": class_of({"w": [kind, {}], "last": ["INT", {}]})}
    assert inputs_of(file(node(1, "X", [saved, 5])), classes)["1"] == {"w": expected, "last": 5}


def test_widgets_with_more_values_or_with_none() -> None:
    classes = {
        "X": class_of({"box": ["BOUNDING_BOX", {}], "compare": ["IMAGECOMPARE", {}], "last": ["INT", {}]}),
        "View": class_of({"viewport_state": ["LOAD_3D", {}], "last": ["INT", {}]}),
    }
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    found = inputs_of(
        file(node(1, "X", [box, 1, 2, 3, 4, 5]), node(2, "X", []), node(3, "View", ["", 5])), classes
    )
    compare = {"__value__": ["", ""]}
    assert found["1"] == {"box": box, "compare": compare, "last": 5}
    assert found["2"] == {"box": {"x": 0, "y": 0, "width": 512, "height": 512}, "compare": compare, "last": 0}
    assert found["3"] == {"viewport_state": "", "last": 5}
