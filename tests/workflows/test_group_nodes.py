"""Group nodes, the predecessors of subgraphs."""

from typing import Any

from tests.workflows.making import class_of, file, inputs_of, node, socket

CLASSES = {
    "Make": class_of(
        {"w": ["INT", {"default": 64}], "h": ["INT", {"default": 32}], "new": ["INT", {"default": 7}]},
        output=["IMAGE"],
    ),
    "Turn": class_of({"image": ["IMAGE"], "n": ["INT", {"default": 3}]}, output=["IMAGE"]),
    "Show": class_of({"images": ["IMAGE"]}),
}
MAKE = node(1, "Make", [8, 9, 10])
SHOW = node(9, "Show", inputs=[socket("images", 2, "IMAGE")])
REROUTE = {"type": "Reroute", "inputs": [socket("", None)], "outputs": [{"type": "*"}]}
TURN = {"type": "Turn", "inputs": [socket("image", None, "IMAGE")], "outputs": [{"type": "IMAGE"}]}


def grouped(group: Any, row: Any, *inputs: Any, links: Any = ()) -> Any:
    instance = node(5, "workflow>G", row, inputs=list(inputs))
    whole = file(MAKE, instance, SHOW, links=[(2, 5, 0, 9, 0), *links], extra={"groupNodes": {"G": group}})
    return {key: value for key, value in inputs_of(whole, CLASSES).items() if key != "1"}


def test_a_link_from_outside_goes_through_a_reroute_inside() -> None:
    group = {"nodes": [REROUTE, TURN], "links": [[0, 0, 1, 0, 3, "IMAGE"]]}
    found = grouped(group, [4], socket("IMAGE", 1, "IMAGE"), links=[(1, 1, 0, 5, 0)])
    assert found == {"5:1": {"image": ["1", 0], "n": 4}, "9": {"images": ["5:1", 0]}}


def test_a_reroute_between_two_nodes_inside_is_no_input() -> None:
    group = {"nodes": [TURN, REROUTE, TURN], "links": [[0, 0, 1, 0, 3, "IMAGE"], [1, 0, 2, 0, 3, "IMAGE"]]}
    found = grouped(group, [4, 5], socket("image", 1, "IMAGE"), links=[(1, 1, 0, 5, 0)])
    assert found["5:2"] == {"image": ["5:0", 0], "n": 5}
    assert found["5:0"] == {"image": ["1", 0], "n": 4}


def test_a_reroute_at_the_end_has_the_type_of_what_is_before_it() -> None:
    group = {"nodes": [TURN, REROUTE], "links": [[0, 0, 1, 0, 3, "IMAGE"]], "external": [[1, 0, "IMAGE"]]}
    found = grouped(group, [4], socket("image", 1, "IMAGE"), links=[(1, 1, 0, 5, 0)])
    assert found["9"] == {"images": ["5:0", 0]}


def test_a_class_that_has_got_a_widget_since_does_not_take_the_value_of_the_next_node() -> None:
    def make(*inputs: Any) -> Any:
        return {
            "type": "Make",
            "widgets_values": [1, 2],
            "inputs": list(inputs),
            "outputs": [{"type": "IMAGE"}],
        }

    for listed in ((), (socket("w", widget=True), socket("h", widget=True))):
        group = {"nodes": [make(*listed), TURN], "links": [[0, 0, 1, 0, 3, "IMAGE"]]}
        found = grouped(group, [11, 12, 4])
        assert found["5:0"] == {"w": 11, "h": 12, "new": 7}
        assert found["5:1"] == {"image": ["5:0", 0], "n": 4}


def test_a_converted_widget_of_an_old_file_has_no_value_in_the_row() -> None:
    make = {
        "type": "Make", "widgets_values": [1, 2, 3],
        "inputs": [socket("h", widget=True)], "outputs": [{"type": "IMAGE"}],
    }  # fmt: skip
    found = grouped({"nodes": [make, TURN], "links": [[0, 0, 1, 0, 3, "IMAGE"]]}, [11, 13, 4])
    assert found["5:0"] == {"w": 11, "h": 32, "new": 13}
    assert found["5:1"]["n"] == 4


def test_what_is_no_group_does_no_harm() -> None:
    for group in (
        None,
        5,
        {},
        {"nodes": [REROUTE], "links": [[0, 0, 7, 0], "x", [None, 0, 0, 0]], "external": [1, [0]]},
    ):
        whole = file(node(5, "workflow>G", [1]), MAKE, extra={"groupNodes": {"G": group}})
        assert inputs_of(whole, CLASSES)["1"]["w"] == 8
