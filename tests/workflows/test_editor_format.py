"""Conversion of editor files into graphs: nodes, widgets, links. Each rule is the observed behaviour of the
real editor."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from tests.workflows.making import class_of, file, graph_of, inputs_of, node, socket

CLASSES = {
    "Make": class_of({"w": ["INT", {"default": 64}]}, output=["IMAGE", "MASK"], display_name="Make It"),
    "Show": class_of({"images": ["IMAGE"], "n": ["INT", {"default": 3}]}),
    "Text": class_of({"t": ["STRING", {"dynamicPrompts": True}], "u": ["STRING", {}]}),
    "SaveImage": class_of({"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "x"}]}),
    "Number": class_of({"value": ["INT", {}]}, output=["INT"]),
    "Any": class_of({"v": ["*"]}, output=["*"]),
}
MAKE = node(1, "Make", [8])


def show(node_id: int = 9, link: int | None = 1, **other: Any) -> Any:
    return node(node_id, "Show", [5], inputs=[socket("images", link, "IMAGE")], **other)


def test_a_node_is_exported_with_its_widgets_links_and_title() -> None:
    found = graph_of(file(MAKE, show(title="My show"), links=[(1, 1, 1, 9, 0)]), CLASSES)
    assert found == {
        "1": {"class_type": "Make", "inputs": {"w": 8}, "_meta": {"title": "Make It"}},
        "9": {"class_type": "Show", "inputs": {"n": 5, "images": ["1", 1]}, "_meta": {"title": "My show"}},
    }


@pytest.mark.parametrize("title", ["", None, 5])
def test_a_title_that_is_none_is_the_name_of_the_class(title: Any) -> None:
    assert graph_of(file({**MAKE, "title": title}), CLASSES)["1"]["_meta"] == {"title": "Make It"}


@pytest.mark.parametrize(
    ("properties", "pack"),
    [
        ({"cnr_id": "comfy-core", "ver": "0.3.14"}, {"cnr_id": "comfy-core", "ver": "0.3.14"}),
        ({"aux_id": "one/my_pack.x", "ver": "v1.2.3-a"}, {"aux_id": "one/my_pack.x", "ver": "1.2.3-a"}),
        ({"cnr_id": "a", "ver": "0a1b2c3d"}, {"cnr_id": "a", "ver": "0a1b2c3d"}),
        ({"ver": "unknown"}, {"ver": "unknown"}),
        ({"cnr_id": "-a", "aux_id": "https://github.com/a/b", "ver": "1.2"}, {}),
        ({"cnr_id": ["a"], "aux_id": 5, "ver": None}, {}),
        ({"cnr_id": "x" * 101, "aux_id": "a--b/c", "ver": "1.2.3\n"}, {}),
    ],
)
def test_a_node_is_exported_with_its_pack(properties: dict[str, Any], pack: dict[str, str]) -> None:
    found = graph_of(file({**MAKE, "properties": properties}), CLASSES)
    assert found["1"]["_meta"] == {"title": "Make It", **pack}


@pytest.mark.parametrize(
    "links",
    [
        [[1, 1, 0, 9, 0, "IMAGE"]],
        {"1": [1, 1, 0, 9, 0, "IMAGE"]},
        [{"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 9, "target_slot": 0}],
        [None, [1.0, "1", 0, "9", 0]],
        [[1, 1, "0", 9, 0]],
        [[1, 1, 0, 9, 44, "IMAGE"]],
        [[1, 1, 0, 777, 0, "IMAGE"]],
        [[1, 5, 0, 9, 0, "IMAGE"], [1, 1, 0, 9, 0, "IMAGE"]],
        [[1, 1, 0, 9, 0, "IMAGE"], [2, 5, 0, 6, 0, "IMAGE"]],
    ],
)
def test_the_id_of_a_link_is_what_counts(links: Any) -> None:
    found = inputs_of({"nodes": [MAKE, show()], "links": links}, CLASSES)
    assert found["9"]["images"] == ["1", 0]


def test_a_link_that_no_input_names_is_ignored_and_two_inputs_may_share_one() -> None:
    assert "images" not in inputs_of(file(MAKE, show(link=None), links=[(1, 1, 0, 9, 0)]), CLASSES)["9"]
    found = inputs_of(file(MAKE, show(9), show(10), links=[(1, 1, 0, 9, 0)]), CLASSES)
    assert found["9"]["images"] == found["10"]["images"] == ["1", 0]


@pytest.mark.parametrize(
    "broken", [[1, 2], [1, 1, 0, None, None, "IMAGE"], [None, 1, 0, 9, 0], {"id": 1}, 5, "x", None]
)
def test_a_link_without_an_id_or_an_end_is_left_out(broken: Any) -> None:
    links = [broken, [1, 1, 0, 9, 0, "IMAGE"]]
    found = inputs_of({"nodes": [MAKE, show()], "links": links}, CLASSES)
    assert found["9"]["images"] == ["1", 0]
    assert "images" not in inputs_of({"nodes": [MAKE, show()], "links": [broken]}, CLASSES)["9"]


def test_an_input_whose_link_does_not_exist_has_none() -> None:
    assert inputs_of(file(MAKE, show(link=4)), CLASSES)["9"] == {"n": 5}


def test_of_two_links_with_one_id_each_node_has_its_own() -> None:
    other = {**MAKE, "id": 2}
    workflow = file(MAKE, other, show(node_id=8), show(), links=[(1, 1, 0, 8, 0), (1, 2, 0, 9, 0)])
    found = inputs_of(workflow, CLASSES)
    assert (found["8"]["images"], found["9"]["images"]) == (["1", 0], ["2", 0])


def test_a_link_at_two_inputs_of_a_node_counts_where_it_ends() -> None:
    classes = {**CLASSES, "Two": class_of({"a": ["IMAGE"], "b": ["IMAGE"]})}
    for slot, name in enumerate("ab"):
        two = node(9, "Two", inputs=[socket("a", 1, "IMAGE"), socket("b", 1, "IMAGE")])
        assert inputs_of(file(MAKE, two, links=[(1, 1, 0, 9, slot)]), classes)["9"] == {name: ["1", 0]}


@pytest.mark.parametrize(
    ("told", "exported"), [("abc", "abc"), ("x:y", "x:y"), (-1, "-1"), (0, "0"), (2.5, "2.5"), (3.0, "3")]
)
def test_ids_are_texts(told: Any, exported: str) -> None:
    assert list(inputs_of(file({**MAKE, "id": told}), CLASSES)) == [exported]


def test_a_node_without_an_id_gets_the_next() -> None:
    nameless = {**MAKE, "id": None}
    assert list(inputs_of(file(MAKE, nameless, nameless, last_node_id=7), CLASSES)) == ["1", "8", "9"]


def test_of_nodes_with_one_id_and_inputs_of_one_name_the_last_counts() -> None:
    assert inputs_of(file(MAKE, {**MAKE, "widgets_values": [9]}), CLASSES) == {"1": {"w": 9}}
    twice = node(9, "Show", [5], inputs=[socket("images", 1), socket("images", 2)])
    found = inputs_of(file(MAKE, node(2, "Make"), twice, links=[(1, 1, 0, 9, 0), (2, 2, 0, 9, 0)]), CLASSES)
    assert found["9"]["images"] == ["2", 0]


def test_values_that_are_lists_are_wrapped() -> None:
    assert inputs_of(file(node(1, "Make", [["2", 0]])), CLASSES) == {"1": {"w": {"__value__": ["2", 0]}}}


def test_what_the_class_gives_no_default_for_is_left_out_unless_it_is_saved() -> None:
    classes = {"X": class_of({"c": [[]], "n": ["INT"]})}
    assert inputs_of(file(node(1, "X")), classes) == {"1": {"n": 0}}
    assert inputs_of(file(node(1, "X", [None])), classes) == {"1": {"c": None, "n": 0}}


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_widget_that_is_linked_takes_no_value(is_listed: bool) -> None:
    """The saved list still has the widget's own value, so the positions of the others do not change."""
    classes = {**CLASSES, "Two": class_of({"a": ["INT"], "b": ["INT"], "i": ["IMAGE"]})}
    two = node(9, "Two", [5, 6], inputs=[socket("a", 1, "INT", widget=is_listed)])
    found = inputs_of(file(node(1, "Number", [7]), two, links=[(1, 1, 0, 9, 0)]), classes)
    assert found["9"] == {"a": ["1", 0], "b": 6}


def test_inputs_that_only_the_file_knows_are_exported_when_linked() -> None:
    extra = node(9, "Show", [5], inputs=[socket("more", 1), socket("less")])
    found = inputs_of(file(MAKE, extra, links=[(1, 1, 0, 9, 0)]), CLASSES)
    assert found["9"] == {"n": 5, "more": ["1", 0]}


@pytest.mark.parametrize("mode", [0, 1, 3, 5, None, "2", [4], True])
def test_every_other_mode_runs(mode: Any) -> None:
    assert inputs_of(file({**MAKE, "mode": mode}), CLASSES) == {"1": {"w": 8}}


OLD: Any = {"extra": {"frontendVersion": "1.27.10"}}
"""The part of a file that says which editor saved it."""


def test_what_is_linked_to_a_muted_node_has_neither_link_nor_value() -> None:
    muted = node(1, "Number", [7], mode=2)
    linked = node(9, "Show", [5], inputs=[socket("n", 1, "INT", widget=True)])
    old = file(muted, linked, links=[(1, 1, 0, 9, 0)], **OLD)
    assert inputs_of(old, CLASSES) == {"9": {}}


def test_a_widget_keeps_its_value_if_its_source_is_muted() -> None:
    muted = node(1, "Number", [7], mode=2)
    linked = node(9, "Show", [5], inputs=[socket("n", 1, "INT", widget=True)])
    assert inputs_of(file(muted, linked, links=[(1, 1, 0, 9, 0)]), CLASSES) == {"9": {"n": 5}}


def test_notes_do_not_run() -> None:
    assert list(inputs_of(file(node(1, "Note", ["x"]), node(2, "MarkdownNote", ["x"]), MAKE), CLASSES)) == [
        "1"
    ]


@pytest.mark.parametrize(
    ("kind", "inputs", "slot", "wanted", "source"),
    [
        ("Keep", {"i": "IMAGE", "m": "MASK"}, 0, "IMAGE", "i"),
        ("Keep", {"i": "IMAGE", "m": "MASK"}, 1, "MASK", "m"),
        ("Swap", {"m": "MASK", "a": "*", "i": "IMAGE"}, 0, "IMAGE", "i"),
        ("Loose", {"l": "LATENT", "a": "*"}, 0, "IMAGE", "a"),
        ("Union", {"l": "LATENT", "u": "MASK, image"}, 0, "IMAGE", "u"),
        ("Keep", {"i": "IMAGE", "m": "MASK"}, 1, "*", "m"),
        ("Swap", {"m": "MASK", "i": "IMAGE"}, 7, "*", "m"),
        ("Swap", {"m": "MASK", "a": "*"}, 7, "*", "m"),
        ("None", {"l": "LATENT"}, 0, "IMAGE", None),
        ("Float", {"f": "FLOAT"}, 0, "INT", None),
        ("Empty", {}, 0, "*", None),
    ],
)
def test_a_bypassed_node_hands_on_the_input_that_fits(
    kind: str, inputs: dict[str, str], slot: int, wanted: str, source: str | None
) -> None:
    classes = {
        **CLASSES,
        kind: class_of({name: [each] for name, each in inputs.items()}, output=["IMAGE", "MASK"]),
        "End": class_of({"e": [wanted]}),
    }
    makers = [node(10 + at, "Make") for at in range(len(inputs))]
    listed = [socket(name, 10 + at, "WRONG") for at, name in enumerate(inputs)]
    end = node(9, "End", inputs=[socket("e", 1)])
    links = [(1, 5, slot, 9, 0), *((10 + at, 10 + at, 0, 5, at) for at in range(len(inputs)))]
    bypassed = node(5, kind, mode=4, inputs=listed)
    found = inputs_of(file(*makers, bypassed, end, links=links), classes)
    expected = {name: str(10 + at) for at, name in enumerate(inputs)}
    given = found["9"].get("e")
    assert given == [expected[source], 0] if source else not isinstance(given, list)


def test_a_bypassed_node_whose_fitting_input_is_not_linked_leaves_a_widget_its_value() -> None:
    classes = {**CLASSES, "Pass": class_of({"i": ["INT"]}, output=["INT"])}
    target = node(9, "Show", [5], inputs=[socket("n", 1, "INT", widget=True)])
    found = inputs_of(file(node(4, "Pass", [8], mode=4), target, links=[(1, 4, 0, 9, 0)]), classes)
    assert found == {"9": {"n": 5}}


def test_the_first_of_exactly_the_type_is_taken_even_if_it_is_not_linked() -> None:
    classes = {**CLASSES, "Two": class_of({"m": ["MASK"], "a": ["IMAGE"], "b": ["IMAGE"]}, output=["IMAGE"])}
    two = node(5, "Two", mode=4, inputs=[socket("b", 2)])
    assert (
        "images"
        not in inputs_of(file(MAKE, two, show(), links=[(1, 5, 0, 9, 0), (2, 1, 0, 5, 2)]), classes)["9"]
    )


def test_widgets_are_counted_behind_sockets_when_slots_are_matched() -> None:
    classes = {**CLASSES, "Mix": class_of({"n": ["INT"], "image": ["IMAGE"]}, output=["IMAGE"])}
    mix = node(5, "Mix", [1], mode=4, inputs=[socket("n", 2, widget=True), socket("image", 3)])
    links = [(1, 5, 0, 9, 0), (2, 2, 0, 5, 0), (3, 1, 0, 5, 1)]
    any_end = node(9, "Any", inputs=[socket("v", 1)])
    assert inputs_of(file(MAKE, node(2, "Number"), mix, any_end, links=links), classes)["9"] == {
        "v": ["1", 0]
    }


def test_a_chain_of_bypassed_nodes_asks_for_the_type_in_between() -> None:
    classes = {
        **CLASSES,
        "Swap": class_of({"m": ["MASK"], "i": ["IMAGE"]}, output=["IMAGE"]),
    }
    swap = node(5, "Swap", mode=4, inputs=[socket("m", 2), socket("i", 3)])
    loose = node(6, "Any", mode=4, inputs=[socket("v", 4)])
    links = [(1, 6, 0, 9, 0), (2, 2, 1, 5, 0), (3, 1, 0, 5, 1), (4, 5, 0, 6, 0)]
    found = inputs_of(file(MAKE, node(2, "Make"), swap, loose, show(), links=links), classes)
    assert found["9"]["images"] == ["2", 1]


def reroute(node_id: int, link: int | None, **other: Any) -> Any:
    return node(node_id, "Reroute", inputs=[socket("", link)], **other)


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_reroutes_are_passed_whatever_their_mode(mode: int) -> None:
    chain = [reroute(2, 2, mode=mode), reroute(3, 3, mode=mode)]
    links = [(1, 3, 0, 9, 0), (3, 2, 0, 3, 0), (2, 1, 1, 2, 0)]
    assert inputs_of(file(MAKE, *chain, show(), links=links, **OLD), CLASSES)["9"]["images"] == ["1", 1]
    newest = inputs_of(file(MAKE, *chain, show(), links=links), CLASSES)["9"]
    assert newest.get("images") == (None if mode == 2 else ["1", 1])


def test_the_type_asked_for_is_the_targets_through_reroutes() -> None:
    classes = {**CLASSES, "Swap": class_of({"m": ["MASK"], "i": ["IMAGE"]}, output=["IMAGE"])}
    swap = node(5, "Swap", mode=4, inputs=[socket("m", 2), socket("i", 3)])
    links = [(1, 7, 0, 9, 0), (2, 2, 1, 5, 0), (3, 1, 0, 5, 1), (4, 5, 0, 7, 0)]
    found = inputs_of(file(MAKE, node(2, "Make"), swap, reroute(7, 4), show(), links=links), classes)
    assert found["9"]["images"] == ["1", 0]


def test_a_reroute_from_nowhere_leaves_the_value() -> None:
    target = node(9, "Show", [5], inputs=[socket("n", 1, widget=True)])
    for nowhere in (reroute(2, None), node(2, "Reroute")):
        assert inputs_of(file(nowhere, target, links=[(1, 2, 0, 9, 0)]), CLASSES) == {"9": {"n": 5}}


def primitive(values: Any, node_id: int = 1, **other: Any) -> Any:
    return node(node_id, "PrimitiveNode", values, **other)


NUMBERED = node(9, "Show", [5], inputs=[socket("n", 1, "INT", widget=True)])


@pytest.mark.parametrize(
    ("values", "expected"), [([7, "fixed"], 7), ([7.6], 8), ([None], 0), ([], 5), (None, 5), ({"a": 1}, 5)]
)
@pytest.mark.parametrize("mode", [0, 2, 4])
def test_a_primitive_writes_its_value_into_the_widget(values: Any, mode: int, expected: int) -> None:
    found = inputs_of(file(primitive(values, mode=mode), NUMBERED, links=[(1, 1, 0, 9, 0)]), CLASSES)
    assert found == {"9": {"n": expected}}


def test_a_primitive_gives_nothing_through_a_reroute_a_bypassed_node_or_to_a_socket() -> None:
    links = [(1, 2, 0, 9, 0), (2, 1, 0, 2, 0)]
    passed = [reroute(2, 2), node(2, "Any", mode=4, inputs=[socket("v", 2)])]
    for each in passed:
        assert inputs_of(file(primitive([7]), each, NUMBERED, links=links), CLASSES) == {"9": {"n": 5}}
    assert inputs_of(file(primitive([7]), show(), links=[(1, 1, 0, 9, 0)]), CLASSES) == {"9": {"n": 5}}


def test_the_text_of_a_primitive_is_queued_like_one_of_the_node() -> None:
    text = node(9, "Text", ["a", "b"], inputs=[socket("t", 1, widget=True)])
    found = inputs_of(file(primitive(["{x|y} // z"]), text, links=[(1, 1, 0, 9, 0)]), CLASSES)
    assert found == {"9": {"t": "y ", "u": "b"}}


def test_the_control_of_a_primitive_is_known_when_its_seed_is_settled() -> None:
    classes = {"K": class_of({"seed": ["INT"]})}
    sampler = node(9, "K", [1, "fixed"], inputs=[socket("seed", 1, widget=True)])
    seen: list[Any] = []
    inputs_of(
        file(primitive([7, "increment"]), sampler, links=[(1, 1, 0, 9, 0)]),
        classes,
        resolve_value=lambda widget: seen.append((widget.value, widget.control)),
    )
    assert seen[-1] == (7, "increment")


def test_only_texts_that_the_class_wants_so_are_dynamic() -> None:
    found = inputs_of(file(node(1, "Text", ["{a|b} // c", "{a|b} // c"])), CLASSES)
    assert found == {"1": {"t": "b ", "u": "{a|b} // c"}}
    assert inputs_of(file(node(1, "Text", [12, 5])), CLASSES) == {"1": {"t": 12, "u": 5}}


def saver(prefix: str, kind: str = "SaveImage") -> Any:
    return node(9, kind, [prefix])


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("%Make.w%", "8"),
        ("%Titled.w%", "2"),
        ("%Called.w%", "3"),
        ("%seeded.control_after_generate%", "increment"),
        ("%SaveImage.filename_prefix%", "%SaveImage.filename_prefix%"),
        ("%date:yyyy%", "2025"),
        ("{a|b} // c", "{a|b} // c"),
    ],
)
def test_names_of_files_name_widgets(prefix: str, name: str) -> None:
    """Nodes are found by "Node name for S&R", then by title; the first match counts, also a muted node."""
    called = {"Node name for S&R": "Called"}
    nodes = [
        node(1, "Make", [8], mode=2),
        node(2, "Make", [2], title="Titled"),
        node(3, "Make", [3], properties=called),
        node(4, "Make", [4], title="Called"),
        node(5, "K", [5, "increment"], title="seeded"),
    ]
    classes = {**CLASSES, "K": class_of({"seed": ["INT"]})}
    assert inputs_of(file(*nodes, saver(prefix)), classes)["9"] == {"filename_prefix": name}


def test_names_of_files_are_made_only_by_classes_that_save() -> None:
    classes = {**CLASSES, "Other": CLASSES["SaveImage"], "SaveVideo": CLASSES["SaveImage"]}
    assert inputs_of(file(MAKE, saver("%Make.w%", "Other")), classes)["9"] == {"filename_prefix": "%Make.w%"}
    assert inputs_of(file(MAKE, saver("%Make.w%", "SaveVideo")), classes)["9"] == {"filename_prefix": "8"}


def test_a_name_that_no_disk_takes_is_refused() -> None:
    classes = {**CLASSES, "Text": class_of({"t": ["STRING"]})}
    long = node(1, "Text", ["x" * 3_000])
    with pytest.raises(InvalidGraph, match=r"Node 9 \(SaveImage\).*too long"):
        graph_of(file(long, saver("%Text.t%%Text.t%")), classes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("T2IAdapterLoader", "ControlNetLoader"),
        ("ConditioningAverage ", "ConditioningAverage"),
        ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
    ],
)
def test_renamed_classes(old: str, new: str) -> None:
    assert graph_of(file(node(1, old)), {new: class_of({})})["1"]["class_type"] == new


def test_renamed_samplers() -> None:
    inputs = {"sampler_name": [["euler"]]}
    classes = {"KSampler": class_of(inputs), "Other": class_of(inputs)}
    found = inputs_of(
        file(node(1, "KSampler", ["sample_euler"]), node(2, "Other", ["sample_euler"])), classes
    )
    assert found == {"1": {"sampler_name": "euler"}, "2": {"sampler_name": "sample_euler"}}


def test_remote_choices_that_are_taken_at_every_refresh() -> None:
    remote = {"route": "/files", "control_after_refresh": "first"}
    classes = {
        "L": class_of({"f": ["COMBO", {"remote": remote}], "g": ["COMBO", {"remote": {"route": "/files"}}]})
    }
    found = inputs_of(file(node(1, "L", ["a", "b"])), classes, remote_choices={"/files": ["new", "old"]})
    assert found == {"1": {"f": "new", "g": "b"}}
    assert inputs_of(file(node(1, "L", ["a", "b"])), classes, remote_choices={"/files": []}) == {
        "1": {"f": "a", "g": "b"}
    }


def test_classes_that_are_not_there_are_exported_as_far_as_the_file_tells() -> None:
    of_a_class = {"Node name for S&R": "Gone"}
    unknown = node(5, "Gone", [1, 2], inputs=[socket("x", 1)], title="Lost", properties=of_a_class)
    found = graph_of(file(MAKE, unknown, links=[(1, 1, 0, 5, 0)]), CLASSES)
    assert found["5"] == {"class_type": "Gone", "inputs": {"x": ["1", 0]}, "_meta": {"title": "Lost"}}
    named = node(5, "Gone", {"a": 1, "b": ["7", 0]}, properties=of_a_class)
    assert inputs_of(file(named), CLASSES) == {"5": {"a": 1, "b": {"__value__": ["7", 0]}}}
    bypassed = node(5, "Gone", mode=4, inputs=[socket("x", 2, "IMAGE")], outputs=[{"type": "IMAGE"}])
    found = inputs_of(file(MAKE, bypassed, show(), links=[(1, 5, 0, 9, 0), (2, 1, 0, 5, 0)]), CLASSES)
    assert found["9"]["images"] == ["1", 0]


@pytest.mark.parametrize("kind", ["WEBCAM", "AUDIO_RECORD", "LOAD_3D"])
def test_what_a_browser_makes_is_refused_by_name(kind: str) -> None:
    classes = {"Cam": class_of({"image": [kind, {}]})}
    with pytest.raises(InvalidGraph, match=r'Node 4 \(Cam\): its input "image" is made by a browser'):
        graph_of(file(node(4, "Cam", ["x"])), classes)


SCENES = {
    **CLASSES,
    "Load3D": class_of(
        {"model_file": [["a.glb"]], "image": ["LOAD_3D", {}]}, output=["IMAGE", "STRING", "FILE_3D", "VIDEO"]
    ),
    "Model": class_of({"v": ["*"]}),
}


def scene(*slots: int) -> Any:
    """An editor file in which nodes use these outputs of a Load3D."""
    users = [node(10 + slot, "Model", inputs=[socket("v", slot + 1)]) for slot in slots]
    return file(
        node(4, "Load3D", ["a.glb", ""]), *users, links=[(slot + 1, 4, slot, 10 + slot, 0) for slot in slots]
    )


@pytest.mark.parametrize("slots", [(), (1,), (2,), (1, 2)])
def test_the_view_of_a_scene_is_blank_if_only_its_model_is_used(slots: tuple[int, ...]) -> None:
    blank = "comfyui-workflow-blank-view.png"
    pictures = dict.fromkeys(("image", "mask", "normal", "lineart"), blank)
    view = {**pictures, "camera_info": None, "recording": ""}
    assert inputs_of(scene(*slots), SCENES)["4"] == {"model_file": "a.glb", "image": view}


@pytest.mark.parametrize("slots", [(0,), (2, 3), (2, 7)])
def test_a_view_of_a_scene_that_a_node_uses_is_refused(slots: tuple[int, ...]) -> None:
    with pytest.raises(InvalidGraph, match=r'Node 4 \(Load3D\): its input "image" is made by a browser'):
        inputs_of(scene(*slots), SCENES)


CAMERA = {"position": {"x": 1, "y": 2, "z": 3}, "target": {"x": 0, "y": 0, "z": 0}, "zoom": 1}


@pytest.mark.parametrize(
    ("config", "sent"),
    [
        ({"fov": 40, "state": CAMERA}, {"camera_info": {**CAMERA, "fov": 40}, "model_3d_info": []}),
        ({"state": CAMERA}, {"camera_info": CAMERA, "model_3d_info": []}),
        ({"fov": 40}, ""),
        ({"state": "x"}, ""),
        (None, ""),
        ([5], ""),
    ],
)
def test_a_viewer_has_the_camera_of_the_file(config: Any, sent: Any) -> None:
    classes = {"Viewer": class_of({"viewport_state": ["LOAD_3D", {}], "width": ["INT", {}]})}
    viewer = node(4, "Viewer", ["", 512], properties={"Camera Config": config})
    assert inputs_of(file(viewer), classes)["4"] == {"viewport_state": sent, "width": 512}


CIRCLE = [node(5, "Any", mode=4, inputs=[socket("v", 2)]), node(6, "Any", mode=4, inputs=[socket("v", 3)])]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (file(show(), links=[(1, 44, 0, 9, 0)]), "link 1 from node 44, which does not exist"),
        (
            file(*CIRCLE, show(), links=[(1, 5, 0, 9, 0), (2, 6, 0, 5, 0), (3, 5, 0, 6, 0)]),
            'node 9 .Show.: input "images" is linked in a circle',
        ),
        (
            file(reroute(2, 2), show(title="Mine"), links=[(1, 2, 0, 9, 0), (2, 2, 0, 2, 0)]),
            'node 9 .Show "Mine".: input "images" is linked in a circle',
        ),
        (file({"id": 1}), "no id or type"),
        (file({"id": [], "type": "Make"}), "no id or type"),
        ({"nodes": 5}, "not a file of the ComfyUI editor"),
    ],
)
def test_what_is_broken_is_refused_by_name(broken: Any, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        graph_of(broken, CLASSES)


def test_what_is_broken_where_nothing_runs_does_no_harm() -> None:
    muted = show(link=4, mode=2)
    unused = [reroute(2, 2), reroute(3, 3)]
    assert list(inputs_of(file(MAKE, muted, *unused, links=[(2, 3, 0, 2, 0), (3, 2, 0, 3, 0)]), CLASSES)) == [
        "1"
    ]


def test_a_circle_of_nodes_that_run_is_for_the_graph_to_be_refused() -> None:
    ring = node(1, "Any", inputs=[socket("v", 1)])
    assert inputs_of(file(ring, links=[(1, 1, 0, 1, 0)]), CLASSES) == {"1": {"v": ["1", 0]}}


@pytest.mark.parametrize("slot", [-1, -7, 99, "x", None])
def test_slots_that_are_not_there(slot: Any) -> None:
    bypassed = node(5, "Gone", mode=4, inputs=[socket("x", 2, "IMAGE")], outputs=[{"type": "IMAGE"}])
    workflow = {"nodes": [MAKE, bypassed, show()], "links": [[1, 5, slot, 9, 0], [2, 1, 0, 5, 0]]}
    assert inputs_of(workflow, CLASSES)["9"]["images"] == ["1", 0]
