"""Subgraphs: expansion of their instances, and promoted widgets."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.links import DEEPEST_SUBGRAPHS
from tests.workflows.making import class_of, file, graph_of, inputs_of, node, socket, subgraph

CLASSES = {
    "Make": class_of({"w": ["INT", {"default": 64}]}, output=["IMAGE"]),
    "Turn": class_of(
        {"image": ["IMAGE"], "n": ["INT", {"default": 3}], "t": ["STRING", {}]}, output=["IMAGE"]
    ),
    "Show": class_of({"images": ["IMAGE"], "n": ["INT", {"default": 3}]}),
    "Number": class_of({"value": ["INT", {}]}, output=["INT"]),
    "Prompt": class_of({"t": ["STRING", {"dynamicPrompts": True}], "b": ["STRING", {"multiline": True}]}),
}
SHOWN = {**CLASSES, "Show": {**CLASSES["Show"], "output_node": True}, "KSampler": class_of()}
OLD: Any = {"extra": {"frontendVersion": "1.27.10"}}
MAKE = node(1, "Make", [8])
SHOW = node(9, "Show", [5], inputs=[socket("images", 9, "IMAGE")])


def turning(name: str = "S", inner_mode: int = 0, **other: Any) -> Any:
    """Returns a subgraph with one node that processes an image; its two widgets are promoted."""
    inputs = [
        socket("image", 1, "IMAGE"), socket("n", 2, "INT", widget=True), socket("t", 3, "STRING", widget=True)
    ]  # fmt: skip
    inner = node(5, "Turn", [30, "inner"], inputs=inputs, mode=inner_mode)
    return subgraph(
        name,
        inner,
        links=[(1, -10, 0, 5, 0), (2, -10, 1, 5, 1), (3, -10, 2, 5, 2), (4, 5, 0, -20, 0)],
        inputs=[("image", "IMAGE", 1), ("number", "INT", 2), ("text", "STRING", 3)],
        outputs=[("out", "IMAGE", 4)],
        **other,
    )


def instance(
    node_id: int = 2, values: Any = None, link: int | None = 1, kind: str = "S", **other: Any
) -> Any:
    made = node(node_id, kind, values, **other)
    return {**made, "inputs": [socket("image", link, "IMAGE"), *other.get("inputs", [])]}


def around(*nodes: Any, links: Any = (), subgraphs: Any = None) -> Any:
    """Returns a file in which node 2 gets an image from Make, and Show gets the output of node 2."""
    definitions = {"subgraphs": subgraphs or [turning()]}
    return file(MAKE, *nodes, SHOW, links=[(1, 1, 0, 2, 0), (9, 2, 0, 9, 0), *links], definitions=definitions)


def test_the_nodes_inside_run_under_the_id_of_the_one_outside() -> None:
    found = inputs_of(around(instance(values=[7, "outer"])), CLASSES)
    assert found == {
        "1": {"w": 8},
        "9": {"n": 5, "images": ["2:5", 0]},
        "2:5": {"image": ["1", 0], "n": 7, "t": "outer"},
    }


@pytest.mark.parametrize(
    ("values", "number", "text"),
    [
        ([7, "outer"], 7, "outer"),
        ([7], 7, "inner"),
        ([], 30, "inner"),
        (None, 30, "inner"),
        ({"number": 7}, 30, "inner"),
        ([None, None], None, None),
        ([7, "outer", "more"], 7, "outer"),
        ([[1, 2], "a // {b|c}"], {"__value__": [1, 2]}, "a // {b|c}"),
    ],
)
def test_the_values_outside_are_those_of_the_widgets_inside(values: Any, number: Any, text: Any) -> None:
    found = inputs_of(around(instance(values=values)), CLASSES)["2:5"]
    assert (found["n"], found["t"]) == (number, text)


def test_each_that_stands_for_it_has_values_of_its_own() -> None:
    found = inputs_of(around(instance(2, [7, "a"]), instance(3, [8, "b"]), instance(4)), CLASSES)
    assert {key: (one["n"], one["t"]) for key, one in found.items() if ":" in key} == {
        "2:5": (7, "a"), "3:5": (8, "b"), "4:5": (30, "inner")
    }  # fmt: skip


def test_a_widget_shown_outside_may_be_linked_there() -> None:
    linked = instance(values=[7, "a"], inputs=[socket("number", 5, "INT", widget=True)])
    found = inputs_of(around(node(4, "Number", [1]), linked, links=[(5, 4, 0, 2, 1)]), CLASSES)
    assert found["2:5"] == {"image": ["1", 0], "n": ["4", 0], "t": "a"}


@pytest.mark.parametrize(
    ("source", "number"),
    [
        (node(4, "Number", [1], mode=2), None),
        (node(4, "Turn", [1], mode=4), 7),
        (node(4, "PrimitiveNode", [55.4]), 55),
        (node(4, "PrimitiveNode", []), 7),
        (node(4, "Reroute"), 7),
    ],
)
def test_what_gives_a_shown_widget_nothing_leaves_its_value_there(source: Any, number: Any) -> None:
    """A muted source is different: the input then has no value. In newer editors, the value outside counts
    only where nothing is linked to it."""
    linked = instance(values=[7, "a"], inputs=[socket("number", 5, "INT", widget=True)])
    whole = around(source, linked, links=[(5, 4, 0, 2, 1)])
    assert inputs_of({**whole, **OLD}, CLASSES)["2:5"].get("n") == number
    assert inputs_of(whole, CLASSES)["2:5"].get("n") == 30


def test_shown_texts_are_queued_as_they_are_but_shown_as_text() -> None:
    inner = node(5, "Prompt", ["x", "y"], inputs=[socket("t", 1, widget=True), socket("b", 2, widget=True)])
    prompts = subgraph(
        "P",
        inner,
        links=[(1, -10, 0, 5, 0), (2, -10, 1, 5, 1)],
        inputs=[("t", "STRING", 1), ("b", "STRING", 2)],
    )
    found = inputs_of(around(node(2, "P", ["{a|b} // c", 12]), subgraphs=[prompts]), CLASSES)
    assert found["2:5"] == {"t": "{a|b} // c", "b": "12"}


def test_a_shown_value_also_reaches_a_socket_and_a_bypassed_node() -> None:
    classes = {**CLASSES, "Any": class_of({"v": ["*"]}), "Pass": class_of({"i": ["INT"]}, output=["INT"])}
    inner = subgraph(
        "S",
        node(5, "Number", [30], inputs=[socket("value", 1, widget=True)]),
        node(6, "Any", inputs=[socket("v", 2)]),
        node(7, "Pass", [1], mode=4, inputs=[socket("i", 3, widget=True)]),
        node(8, "Show", [5], inputs=[socket("n", 4, widget=True)]),
        links=[(1, -10, 0, 5, 0), (2, -10, 0, 6, 0), (3, -10, 0, 7, 0), (4, 7, 0, 8, 0)],
        inputs=[("number", "INT", 1, 2, 3)],
    )
    found = inputs_of(file(node(2, "S", [77]), definitions={"subgraphs": [inner]}), classes)
    assert found == {"2:5": {"value": 77}, "2:6": {"v": 77}, "2:8": {"n": 77}}


def nested(*, outer_row: Any, inner_row: Any, mode: int = 0) -> Any:
    inner = instance(8, inner_row, kind="S", mode=mode)
    inner["inputs"] = [socket("image", 1), socket("number", 2, widget=True), socket("text", 3, widget=True)]
    outer = subgraph(
        "O",
        inner,
        links=[(1, -10, 0, 8, 0), (2, -10, 1, 8, 1), (3, -10, 2, 8, 2), (4, 8, 0, -20, 0)],
        inputs=[("image", "IMAGE", 1), ("number", "INT", 2), ("text", "STRING", 3)],
        outputs=[("out", "IMAGE", 4)],
    )
    return instance(2, outer_row, kind="O"), outer


@pytest.mark.parametrize(
    ("outer_row", "inner_row", "expected"),
    [
        ([1, "o"], [2, "i"], (1, "o")),
        ([1], [2, "i"], (1, "i")),
        (None, [2, "i"], (2, "i")),
        (None, None, (30, "inner")),
        ([1], None, (1, "inner")),
    ],
)
def test_of_subgraphs_in_each_other_the_outermost_value_counts(
    outer_row: Any, inner_row: Any, expected: Any
) -> None:
    one, outer = nested(outer_row=outer_row, inner_row=inner_row)
    within = {**outer, "definitions": {"subgraphs": [turning()]}}
    for definitions in ([outer, turning()], [turning(), outer], [within]):
        found = inputs_of(around(one, subgraphs=definitions), CLASSES)
        assert set(found) == {"1", "9", "2:8:5"}
        assert found["9"]["images"] == ["2:8:5", 0]
        assert found["2:8:5"] == {"image": ["1", 0], "n": expected[0], "t": expected[1]}


@pytest.mark.parametrize("level", ["outer", "inner"])
def test_in_older_editors_a_bypassed_subgraph_runs_inside_and_is_passed_by(level: str) -> None:
    if level == "outer":
        found = inputs_of({**around(instance(values=[7, "a"], mode=4)), **OLD}, SHOWN)
        assert "2:5" in found
    else:
        one, outer = nested(outer_row=[1, "o"], inner_row=None, mode=4)
        found = inputs_of(around(one, subgraphs=[outer, turning()]), CLASSES)
        assert "2:8:5" in found
    assert found["9"]["images"] == ["1", 0]


def test_in_older_editors_a_muted_subgraph_is_muted_by_the_nodes_inside() -> None:
    found = inputs_of({**around(instance(values=[7, "a"], mode=2)), **OLD}, CLASSES)
    assert found["9"]["images"] == ["2:5", 0]
    found = inputs_of({**around(instance(mode=2), subgraphs=[turning(inner_mode=2)]), **OLD}, CLASSES)
    assert set(found) == {"1", "9"}
    assert "images" not in found["9"]


@pytest.mark.parametrize(("mode", "images"), [(2, None), (4, ["1", 0])])
@pytest.mark.parametrize("version", ["1.40.0", "1.58.1", "2.0", None, 7, "new"])
def test_a_subgraph_that_is_switched_off_takes_its_nodes_with_it(
    mode: int, images: Any, version: Any
) -> None:
    told = {} if version is None else {"extra": {"frontendVersion": version}}
    found = inputs_of({**around(instance(values=[7, "a"], mode=mode)), **told}, CLASSES)
    assert set(found) == {"1", "9"}
    assert found["9"].get("images") == images


@pytest.mark.parametrize(("version", "runs"), [("1.27.10", True), ("1.39.19", True), ("1.40.0", False)])
def test_the_version_of_the_file_decides_if_an_output_in_a_muted_subgraph_runs(
    version: str, runs: bool
) -> None:
    saving = subgraph(
        "S",
        node(5, "Show", [5], inputs=[socket("images", 1, "IMAGE")]),
        links=[(1, -10, 0, 5, 0)],
        inputs=[("image", "IMAGE", 1)],
    )
    muted = {**around(instance(mode=2), subgraphs=[saving]), "extra": {"frontendVersion": version}}
    muted["links"] = muted["links"][:1]
    muted["nodes"] = muted["nodes"][:-1]
    dynamic = {"D": class_of({"d": ["COMFY_DYNAMICCOMBO_V3", {"options": []}]}), "KSampler": class_of()}
    for classes in ({**CLASSES, "KSampler": class_of()}, {**SHOWN, **dynamic}):
        assert ("2:5" in inputs_of(muted, classes)) == runs


def test_a_file_without_a_version_goes_by_the_age_of_the_instance() -> None:
    whole = around(instance(values=[7, "a"], mode=2))
    assert "2:5" in inputs_of(whole, {**CLASSES, "KSampler": class_of()})
    dynamic = class_of({"d": ["COMFY_DYNAMICCOMBO_V3", {"options": []}]})
    assert "2:5" not in inputs_of(whole, {**CLASSES, "KSampler": class_of(), "D": dynamic})


def test_what_no_output_needs_in_a_muted_subgraph_is_left_out_on_a_new_instance() -> None:
    bypassed = {**around(instance(values=[7, "a"], mode=4)), **OLD}
    dynamic = class_of({"d": ["COMFY_DYNAMICCOMBO_V3", {"options": []}]})
    assert set(inputs_of(bypassed, {**SHOWN, "D": dynamic})) == {"1", "9"}


def test_a_bypassed_node_inside_is_passed_out_of_the_subgraph() -> None:
    found = inputs_of(around(instance(), subgraphs=[turning(inner_mode=4)]), CLASSES)
    assert found == {"1": {"w": 8}, "9": {"n": 5, "images": ["1", 0]}}


def test_a_link_straight_through_is_followed() -> None:
    through = subgraph(
        "S", links=[(1, -10, 0, -20, 0)], inputs=[("image", "IMAGE", 1)], outputs=[("out", "IMAGE", 1)]
    )
    assert inputs_of(around(instance(), subgraphs=[through]), CLASSES)["9"]["images"] == ["1", 0]


def test_a_reroute_inside_is_followed() -> None:
    inside = subgraph(
        "S",
        node(5, "Reroute", inputs=[socket("", 1)]),
        links=[(1, -10, 0, 5, 0), (2, 5, 0, -20, 0)],
        inputs=[("image", "IMAGE", 1)],
        outputs=[("out", "IMAGE", 2)],
    )
    assert inputs_of(around(instance(), subgraphs=[inside]), CLASSES)["9"]["images"] == ["1", 0]


def test_a_primitive_inside_gives_its_value() -> None:
    inside = subgraph(
        "S",
        node(4, "PrimitiveNode", [99]),
        node(5, "Number", [1], inputs=[socket("value", 7, widget=True)]),
        links=[(7, 4, 0, 5, 0)],
    )
    assert inputs_of(around(node(2, "S"), subgraphs=[inside]), CLASSES)["2:5"] == {"value": 99}


def test_inputs_are_matched_by_name() -> None:
    shuffled = node(2, "S", [7, "a"])
    shuffled["inputs"] = [socket("text", None, widget=True), socket("number", 5), socket("image", 1)]
    found = inputs_of(around(node(4, "Number", [1]), shuffled, links=[(5, 4, 0, 2, 0)]), CLASSES)
    assert found["2:5"] == {"image": ["1", 0], "n": ["4", 0], "t": "a"}


def test_an_output_or_an_input_whose_links_are_not_told_leads_nowhere() -> None:
    closed = turning()
    closed["outputs"][0]["linkIds"] = []
    closed["inputs"][1]["linkIds"] = []
    found = inputs_of(around(instance(values=["outer"]), subgraphs=[closed]), CLASSES)
    assert "images" not in found["9"]
    assert found["2:5"]["t"] == "outer"
    assert found["2:5"]["n"] == 30


def test_a_socket_that_nothing_outside_is_linked_to_is_left_out() -> None:
    assert "image" not in inputs_of(around(instance(link=None)), CLASSES)["2:5"]


def test_several_outputs_lead_to_their_own() -> None:
    two = subgraph(
        "S",
        node(5, "Make"),
        node(6, "Make"),
        links=[(1, 5, 0, -20, 0), (2, 6, 0, -20, 1)],
        outputs=[("a", "IMAGE", 1), ("b", "IMAGE", 2)],
    )
    second = node(10, "Show", [5], inputs=[socket("images", 10, "IMAGE")])
    found = inputs_of(around(node(2, "S"), second, links=[(10, 2, 1, 10, 0)], subgraphs=[two]), CLASSES)
    assert (found["9"]["images"], found["10"]["images"]) == (["2:5", 0], ["2:6", 0])


def test_titles_and_names_of_files_inside() -> None:
    classes = {**CLASSES, "SaveImage": class_of({"filename_prefix": ["STRING", {}]})}
    inside = subgraph(
        "S", node(5, "SaveImage", ["%Make.w%_%inner.value%"]), node(6, "Number", [4], title="inner")
    )
    found = graph_of(around(node(2, "S"), subgraphs=[inside]), classes)
    assert found["2:5"]["inputs"] == {"filename_prefix": "8_4"}
    assert found["2:6"]["_meta"] == {"title": "inner"}


def test_a_type_without_a_definition_is_a_class_that_is_not_there() -> None:
    lost = node(2, "no-such-subgraph", outputs=[{"type": "IMAGE"}])
    found = graph_of(file(lost, SHOW, links=[(9, 2, 0, 9, 0)]), CLASSES)
    assert found["2"]["class_type"] == "no-such-subgraph"


def test_a_definition_that_nothing_stands_for_does_no_harm() -> None:
    broken = subgraph("U", node(1, "U"), node(2, "Turn", inputs=[socket("image", 77)]))
    assert set(inputs_of(around(instance(), subgraphs=[turning(), broken]), CLASSES)) == {"1", "9", "2:5"}


def deep(levels: int) -> Any:
    found = [subgraph(f"S{at}", node(1, f"S{at + 1}")) for at in range(levels)]
    return file(node(1, "S0"), definitions={"subgraphs": [*found, subgraph(f"S{levels}", node(1, "Make"))]})


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (around(node(2, "R"), subgraphs=[subgraph("R", node(5, "R"))]), "node 2:5 .R.: .* a part of itself"),
        (
            around(
                node(2, "R"),
                subgraphs=[subgraph("R", node(5, "Q")), subgraph("Q", node(6, "R", title="Loop"))],
            ),
            'node 2:5:6 .R "Loop".: .* a part of itself',
        ),
        (
            around(
                node(2, "S"),
                subgraphs=[
                    subgraph("S", node(5, "Turn", inputs=[socket("image", 1)]), links=[(1, -10, 3, 5, 0)])
                ],
            ),
            "node 2 .S.: the subgraph has no input number 3",
        ),
        (
            around(
                node(2, "S"),
                subgraphs=[
                    subgraph("S", node(5, "Turn", inputs=[socket("image", 1)]), links=[(1, 44, 0, 5, 0)])
                ],
            ),
            "from node 2:44, which does not exist",
        ),
        (file(node(1, "Turn", inputs=[socket("image", 1)]), links=[(1, -10, 0, 1, 0)]), "from node -10"),
        (deep(DEEPEST_SUBGRAPHS), "nested too deeply"),
    ],
)
def test_what_is_broken_is_refused_by_name(broken: Any, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        graph_of(broken, CLASSES)


def test_subgraphs_may_be_nested_as_deep_as_anyone_does() -> None:
    assert list(inputs_of(deep(DEEPEST_SUBGRAPHS - 1), CLASSES)) == [
        ":".join(["1"] * (DEEPEST_SUBGRAPHS + 1))
    ]


@pytest.mark.parametrize("slot", [-1, -9, 5])
def test_outputs_that_are_not_there_give_nothing(slot: int) -> None:
    workflow = around(instance())
    workflow["links"][1][2] = slot
    assert "images" not in inputs_of(workflow, CLASSES)["9"]


def showing(proxies: Any, row: Any, **other: Any) -> Any:
    """Returns a file whose node 2 lists these promoted widgets."""
    shown = instance(values=row, properties={"proxyWidgets": proxies}, **other)
    return around(shown, subgraphs=[turning()])


@pytest.mark.parametrize(
    ("proxies", "row", "expected"),
    [
        ([["-1", "text"], ["-1", "number"]], ["outer", 7], (7, "outer")),
        ([["5", "t"], ["5", "n"]], ["outer", 7], (7, "outer")),
        ([["-1", "text"]], ["outer"], ("outer", "outer")),
        ([["77", "x"], ["5", "n"]], ["lost", 7], (7, 7)),
        ([["5", "5: n"], ["-1", "text"]], [7, "outer"], (7, "outer")),
        ([[5, "n"], ["-1", "text"]], ["outer", 7], ("outer", 7)),
        ("x", [7, "outer"], (7, "outer")),
        ([["-1", "text"], ["-1", "number"]], None, (30, "inner")),
    ],
)
def test_the_list_of_promoted_widgets_is_the_order_of_the_values(
    proxies: Any, row: Any, expected: Any
) -> None:
    """Values without an entry are those of the inputs in order, as in the editor."""
    found = inputs_of(showing(proxies, row), CLASSES)["2:5"]
    assert (found["n"], found["t"]) == expected


def test_a_widget_that_no_input_is_linked_to_can_be_promoted() -> None:
    inside = subgraph("S", node(5, "Number", [30]), node(6, "Number", [40]))
    one = node(2, "S", [7], properties={"proxyWidgets": [["5", "value"]]})
    found = inputs_of(file(one, node(3, "S"), definitions={"subgraphs": [inside]}), CLASSES)
    assert {key: value["value"] for key, value in found.items()} == {
        "2:5": 7,
        "2:6": 40,
        "3:5": 30,
        "3:6": 40,
    }


def test_a_promoted_widget_can_be_promoted_again_outside() -> None:
    inner = subgraph("I", node(5, "Number", [30]))
    listed = node(8, "I", [40], properties={"proxyWidgets": [["5", "value"]]})
    outer = subgraph("O", listed)
    for entry in (["8", "value"], ["8", "value", "5"], ["8", "5: value"]):
        one = node(2, "O", [50], properties={"proxyWidgets": [entry]})
        found = inputs_of(file(one, node(3, "O"), definitions={"subgraphs": [outer, inner]}), CLASSES)
        assert {key: value["value"] for key, value in found.items()} == {"2:8:5": 50, "3:8:5": 40}


def test_a_promoted_primitive_has_the_value_of_the_instance() -> None:
    target = node(6, "Number", [40], inputs=[socket("value", 1, "INT", widget=True)])
    inside = subgraph("S", node(5, "PrimitiveNode", [30]), target, links=[(1, 5, 0, 6, 0)])
    one = node(2, "S", [7], properties={"proxyWidgets": [["5", "value"]]})
    found = inputs_of(file(one, node(3, "S"), definitions={"subgraphs": [inside]}), CLASSES)
    assert (found["2:6"]["value"], found["3:6"]["value"]) == (7, 40)


def test_subgraphs_that_contain_each_other_are_refused_also_in_the_lists_of_promoted_widgets() -> None:
    def looped(name: str, other: str) -> Any:
        return subgraph(name, node(8, other, [1], properties={"proxyWidgets": [["8", "value"]]}))

    whole = file(node(2, "A"), definitions={"subgraphs": [looped("A", "B"), looped("B", "A")]})
    with pytest.raises(InvalidGraph, match="part of itself"):
        inputs_of(whole, CLASSES)
