"""Preflight findings, compared with the recorded responses of a real ComfyUI.

`data/verdicts.json` was recorded from ComfyUI 0.3.64 with the classes of `data/verdicts_object_info.json`;
its input directory had photo.png and sub/photo.png, its output directory made.png.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.comfyui.validation_errors import node_findings
from comfyui_workflow.workflows.findings import Finding, Severity, errors, warnings
from comfyui_workflow.workflows.input_errors import BY_URL, not_in_list
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles, ReferencedFile, referenced_files
from comfyui_workflow.workflows.validation.nearest_names import nearest
from comfyui_workflow.workflows.validation.preflight import Verdict, preflight
from comfyui_workflow.workflows.validation.replacements import read_replacements

DATA = Path(__file__).parent / "data"
OBJECT_INFO: dict[str, Any] = json.loads((DATA / "verdicts_object_info.json").read_text())
VERDICTS: list[dict[str, Any]] = json.loads((DATA / "verdicts.json").read_text())
DEFINITIONS = Definitions(OBJECT_INFO)
ON_THE_INSTANCE = KnownFiles(
    found=frozenset({("input", "photo.png"), ("input", "sub/photo.png"), ("output", "made.png")}),
    is_asked=True,
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty_image(**inputs: Any) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 16, "height": 16, "batch_size": 1, "color": 0, **inputs})


def shown(source: str = "1", slot: int = 0) -> dict[str, Any]:
    return node("PreviewImage", images=[source, slot])


def check(graph: dict[str, Any], files: KnownFiles = ON_THE_INSTANCE, **options: Any) -> Verdict:
    verdict = preflight(graph, options.pop("definitions", DEFINITIONS), files=files, **options)
    assert verdict.would_run == (not errors(verdict.findings))
    return verdict


def only(findings: list[Finding] | tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.parametrize("recorded", VERDICTS, ids=[each["name"] for each in VERDICTS])
def test_nothing_that_comfyui_runs_is_refused_and_nothing_it_refuses_passes_in_silence(
    recorded: dict[str, Any],
) -> None:
    verdict = check(recorded["graph"])
    if recorded["status"] == 200:
        assert verdict.would_run
    else:
        assert verdict.findings
        assert not verdict.would_run or "custom" in recorded["name"] or "class's" in recorded["name"]


@pytest.mark.parametrize("recorded", VERDICTS, ids=[each["name"] for each in VERDICTS])
def test_what_comfyui_finds_wrong_is_found_at_the_same_inputs(recorded: dict[str, Any]) -> None:
    findings = check(recorded["graph"]).findings
    places = {(finding.node_id, finding.input_name) for finding in findings}
    for node_id, told in dict(recorded["answer"]["node_errors"]).items():
        for error in told["errors"]:
            name = error["extra_info"].get("input_name")
            if not error["type"].startswith("exception_"):
                assert (node_id, name) in places
            else:
                assert node_id in {finding.node_id for finding in findings}


def test_it_says_the_same_as_a_refusal_of_comfyui_in_the_same_words() -> None:
    same = {"required_input_missing", "invalid_input_type", "value_smaller_than_min", "value_bigger_than_max"}
    same |= {"value_not_in_list"}
    compared = 0
    for recorded in VERDICTS:
        findings = [each for each in check(recorded["graph"]).findings if each.node_id]
        node_errors, is_file = recorded["answer"]["node_errors"], "file" in recorded["name"]
        if node_errors and not is_file and {each.code for each in findings} <= same:
            said = node_findings(node_errors, recorded["graph"], OBJECT_INFO)
            assert set(said) == {str(each) for each in findings}
            compared += 1
    assert compared >= 10


def test_everything_is_told_at_once_in_the_order_of_the_graph() -> None:
    graph = {
        "9": {**node("ImageScale", image=["1", 0], width=8, crop="no"), "_meta": {"title": "Shrink"}},
        "1": empty_image(width=0, height="tall"),
        "3": node("SaveImagee", images=["9", 1]),
        "4": shown("9"),
        "5": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
    }
    verdict = check(graph, KnownFiles(provided=frozenset({"spare.png"})))
    assert [(f.node_id, f.input_name, f.code) for f in errors(verdict.findings)] == [
        ("9", "upscale_method", "required_input_missing"),
        ("9", "height", "required_input_missing"),
        ("9", "crop", "value_not_in_list"),
        ("1", "width", "value_smaller_than_min"),
        ("1", "height", "invalid_input_type"),
        ("3", None, "missing_node_type"),
    ]
    assert verdict.findings[0].title == "Shrink"
    assert verdict.findings[0].class_type == "ImageScale"
    assert [f.code for f in warnings(verdict.findings)] == ["input_file_unused", "node_not_needed"]
    assert verdict.findings[: len(errors(verdict.findings))] == tuple(errors(verdict.findings))


def test_one_good_output_is_enough_and_what_is_left_out_is_named() -> None:
    graph = {"1": empty_image(width=0), "2": shown("1"), "3": empty_image(), "4": shown("3")}
    verdict = check(graph)
    assert verdict.would_run
    assert verdict.dropped_outputs == ("2",)
    assert only(verdict.findings).severity is Severity.WARNING
    assert check({**graph, "4": shown("1")}).dropped_outputs == ()


def test_an_unknown_class_refuses_everything_and_names_the_nearest() -> None:
    graph = {"1": empty_image(), "2": shown(), "3": node("EmptyImag")}
    finding = only(errors(check(graph).findings))
    assert finding.nearest[0] == "EmptyImage"
    assert 'no node class "EmptyImag"; the nearest that it has: EmptyImage' in finding.message
    assert not only(errors(check({**graph, "3": node("Qzx")}).findings)).nearest


def test_a_class_that_the_instance_replaces_is_no_unknown_one() -> None:
    graph = {"1": empty_image(), "2": node("PreviewOld", pictures=["1", 0])}
    assert not check(graph).would_run
    moved = {"new_node_id": "PreviewImage", "input_mapping": [{"new_id": "images", "old_id": "pictures"}]}
    assert check(graph, replaced=read_replacements({"PreviewOld": [moved]})).would_run


def replaced_image(**inputs: Any) -> dict[str, Any]:
    return {"1": node("EmptyOld", **inputs), "2": shown()}


EMPTY_OLD = read_replacements(
    {
        "EmptyOld": [
            {
                "new_node_id": "EmptyImage",
                "input_mapping": [
                    {"new_id": "width", "old_id": "side"},
                    {"new_id": "height", "old_id": "side"},
                    {"new_id": "batch_size", "set_value": 1},
                    {"new_id": "color", "set_value": 0},
                ],
            }
        ]
    }
)


def test_a_replaced_node_is_checked_as_what_it_becomes() -> None:
    assert check(replaced_image(side=16, bogus=1), replaced=EMPTY_OLD).would_run
    finding = only(errors(check(replaced_image(side=0), replaced=EMPTY_OLD).findings)[:1])
    assert (finding.node_id, finding.class_type, finding.code) == ("1", "EmptyOld", "value_smaller_than_min")


def test_a_replaced_node_without_an_input_to_take_over_breaks_the_submission() -> None:
    finding = only(errors(check(replaced_image(), replaced=EMPTY_OLD).findings))
    assert (finding.node_id, finding.input_name) == ("1", "side")


def test_a_replacement_without_a_mapping_keeps_no_input() -> None:
    """ComfyUI replaces "ConditioningAverage " like that."""
    replaced = read_replacements({"EmptyOld": [{"new_node_id": "EmptyImage", "input_mapping": None}]})
    graph = replaced_image(width=16, height=16, batch_size=1, color=0)
    found = errors(check(graph, replaced=replaced).findings)
    assert {finding.code for finding in found} == {"required_input_missing"}


def test_a_class_that_exists_is_not_replaced_and_an_unknown_one_replaces_nothing() -> None:
    to_unknown = read_replacements({"EmptyImage": [{"new_node_id": "X"}], "Old": [{"new_node_id": "X"}]})
    assert check({"1": empty_image(), "2": shown()}, replaced=to_unknown).would_run
    finding = errors(check({"1": node("Old"), "2": shown()}, replaced=to_unknown).findings)[0]
    assert (finding.code, finding.class_type) == ("missing_node_type", "Old")


@pytest.mark.parametrize(
    "answer",
    [{"A": None}, {"A": []}, {"A": [1]}, {"A": [{"new_node_id": 1}]}, {"A": {"new_node_id": "B"}}],
)
def test_odd_replacements_are_left_out(answer: dict[str, Any]) -> None:
    assert read_replacements(answer) == {}


@pytest.mark.parametrize("mapping", [None, "x", [None, 1, {}, {"new_id": 1, "old_id": 2}, {"old_id": "a"}]])
def test_odd_mappings_take_nothing_over(mapping: Any) -> None:
    read = read_replacements({"A": [{"new_node_id": "B", "input_mapping": mapping}]})["A"]
    assert read.inputs({"a": 1}) == {}


def test_a_model_it_has_not_got_is_told_with_the_nearest_three() -> None:
    models = [f"SDXL/other-{n}.safetensors" for n in range(30)] + ["SDXL/sd_xl_base_1.0.safetensors"]
    info = {**OBJECT_INFO, "Loader": loader(models)}
    graph = {"1": node("Loader", model="sdxl_base_1.0.ckpt")}
    finding = only(check(graph, definitions=Definitions(info)).findings)
    assert finding.code == "value_not_in_list"
    assert finding.nearest[0] == "SDXL/sd_xl_base_1.0.safetensors"
    assert "the nearest of its 31: SDXL/sd_xl_base_1.0.safetensors" in finding.message


def loader(models: list[Any], module: str = "nodes", **options: Any) -> dict[str, Any]:
    return {
        "input": {"required": {"model": [models, options]}},
        "output": ["MODEL"],
        "output_node": True,
        "python_module": module,
    }


@pytest.mark.parametrize(
    ("module", "is_error"),
    [
        ("nodes", True),
        ("comfy_extras.nodes_x", True),
        ("custom_nodes.x", False),
        ("comfy_api_nodes.x", False),
    ],
)
def test_only_classes_that_come_with_comfyui_are_known_to_be_checked(module: str, is_error: bool) -> None:
    definitions = Definitions({"Loader": loader(["a"], module)})
    verdict = check({"1": node("Loader", model="b")}, definitions=definitions)
    assert verdict.would_run is not is_error
    assert only(verdict.findings).code == "value_not_in_list"


@pytest.mark.parametrize("value", ["photo.png", "photo.png [input]", "sub/photo.png", "made.png [output]"])
def test_files_that_the_instance_has(value: str) -> None:
    assert not check({"1": node("LoadImage", image=value), "2": shown()}).findings


@pytest.mark.parametrize(
    ("value", "files", "is_error"),
    [
        ("new.png", KnownFiles(provided=frozenset({"new.png"}), is_asked=True), None),
        ("new.png [input]", KnownFiles(provided=frozenset({"new.png"}), is_asked=True), None),
        ("new.png [output]", KnownFiles(provided=frozenset({"new.png"}), is_asked=True), True),
        ("new.png", KnownFiles(is_asked=True), True),
        ("new.png", KnownFiles(), False),
        ("../new.png", KnownFiles(is_asked=True), False),
        ("/tmp/new.png", KnownFiles(is_asked=True), False),
        ("", KnownFiles(is_asked=True), False),
    ],
)
def test_files_that_it_has_not(value: str, files: KnownFiles, is_error: bool | None) -> None:
    verdict = check({"1": node("LoadImage", image=value), "2": shown()}, files)
    found = [f for f in verdict.findings if f.code == "input_file_missing"]
    assert [f.severity is Severity.ERROR for f in found] == ([] if is_error is None else [is_error])


@pytest.mark.parametrize(
    ("class_type", "value", "is_doubtful"),
    [
        ("LoadImage", "sub/photo.png", False),
        ("TrialFile", "new.png", False),
        ("TrialFile", "photo.png", True),
        ("TrialFile", "sub/photo.png", True),
        ("TrialModel", "photo.png", True),
    ],
)
def test_a_file_that_is_there_but_not_listed_is_left_to_comfyui(
    class_type: str, value: str, is_doubtful: bool
) -> None:
    model_file = {"required": {"image": [["3d/a.glb"], {"file_upload": True}]}}
    info = {**OBJECT_INFO, "TrialModel": {**OBJECT_INFO["LoadImage"], "input": model_file}}
    graph = {"1": {**node(class_type, image=value)}, "2": node("PreviewAny", source=["1", 0])}
    files = replace(ON_THE_INSTANCE, provided=frozenset({"new.png"}))
    verdict = check(graph, files, definitions=Definitions(info))
    codes = [finding.code for finding in verdict.findings if finding.input_name == "image"]
    assert codes == (["value_not_in_list"] if is_doubtful else [])


def test_a_missing_file_is_told_with_what_comes_nearest() -> None:
    files = KnownFiles(provided=frozenset({"portrait.png"}), is_asked=True)
    verdict = check({"1": node("LoadImage", image="Portrait.jpg"), "2": shown()}, files)
    assert verdict.findings[0].nearest[0] == "portrait.png"
    assert [f.code for f in verdict.findings] == ["input_file_missing", "input_file_unused"]


def test_the_files_that_a_graph_names() -> None:
    graph = {
        "1": node("LoadImage", image="sub/photo.png"),
        "2": node("LoadImageMask", image="made.png [output]", channel="red"),
        "3": node("LoadImage", image="../secret.png"),
        "7": node("LoadImage", image="half\x00.png"),
        "4": node("LoadLatent", latent="x.latent [temp]"),
        "5": node("LoadImage", image=["1", 0]),
        "6": node("SaveImage", filename_prefix="photo.png"),
    }
    named = referenced_files(graph, DEFINITIONS)
    assert [(each.node_id, each.folder, each.name) for each in named] == [
        ("1", "input", "sub/photo.png"),
        ("2", "output", "made.png"),
        ("4", "temp", "x.latent"),
    ]
    assert named[1] == ReferencedFile(
        node_id="2",
        class_type="LoadImageMask",
        input_name="image",
        value="made.png [output]",
        folder="output",
        name="made.png",
        is_listed=False,
    )


def test_a_file_that_its_class_lists_is_marked() -> None:
    listed = (DEFINITIONS.get("LoadImage").input("image").choices or ())[0]  # type: ignore[union-attr]
    graph = {"1": node("LoadImage", image=listed), "2": node("LoadImage", image="new.png")}
    assert [each.is_listed for each in referenced_files(graph, DEFINITIONS)] == [True, False]


def test_a_provided_file_is_used_by_whatever_text_names_it() -> None:
    files = KnownFiles(provided=frozenset({"a.png", "b.png", "c.png", "d.png"}))
    graph = {
        "1": node("LabText", text="a.png", paths={"__value__": ["input/b.png"]}),
        "2": node("LabText", text="c.png [input]"),
    }
    finding = only(check(graph, files).findings)
    assert "d.png" in finding.message
    assert (finding.severity, finding.node_id) == (Severity.WARNING, None)


def test_a_link_to_nowhere_in_an_undeclared_input_would_end_the_worker() -> None:
    """ComfyUI's validation ignores such a link, even if other outputs are valid."""
    graph = {"1": empty_image(), "2": shown(), "3": node("LabText", text="x", extra=["9", 0])}
    finding = only(errors(check(graph).findings))
    assert (finding.code, finding.node_id, finding.input_name) == ("bad_linked_input", "3", "extra")
    graph["3"]["inputs"] = {"text": "x", "image": {"__value__": ["9", 0]}}
    assert not check(graph).would_run


def test_a_link_to_nowhere_that_is_never_followed_is_no_harm() -> None:
    graph = {"1": empty_image(), "2": shown(), "3": node("ImageInvert", image=["9", 0])}
    assert check(graph).would_run


def test_cycles_are_told_with_the_way_they_take() -> None:
    graph = {
        "0": empty_image(),
        "1": node("ImageInvert", image=["2", 0]),
        "2": node("ImageBlend", image1=["1", 0], image2=["0", 0]),
        "3": node("ImageInvert", image=["3", 0]),
        "4": node("ImageBlend", image1=["1", 0], image2=["3", 0]),
        "5": shown("4"),
    }
    definitions = Definitions({**OBJECT_INFO, "ImageBlend": blend()})
    cycles = [f for f in check(graph, definitions=definitions).findings if f.code == "dependency_cycle"]
    assert [f.node_id for f in cycles] == ["2", "3"]
    assert "2 (ImageBlend) → 1 (ImageInvert) → 2 (ImageBlend)" in cycles[0].message


def blend() -> dict[str, Any]:
    images = {"image1": ["IMAGE"], "image2": ["IMAGE"]}
    return {"input": {"required": images}, "output": ["IMAGE"], "python_module": "nodes"}


@pytest.mark.parametrize(
    ("slot", "runs"), [(-1, True), (False, True), (-2, False), (True, False), (0.0, False)]
)
def test_slots_as_python_counts_them(slot: Any, runs: bool) -> None:
    assert check({"1": empty_image(), "2": shown("1", slot)}).would_run is runs


def test_inputs_that_grow_go_by_other_names() -> None:
    grown = {"required": {"images": ["COMFY_AUTOGROW_V3", {}]}}
    definitions = Definitions(
        {
            **OBJECT_INFO,
            "Batch": {"input": grown, "output": ["COMFY_MATCHTYPE_V3"], "python_module": "comfy_extras.x"},
        }
    )
    graph = {"1": empty_image(), "2": node("Batch", **{"images.image0": ["1", 0]}), "3": shown("2")}
    assert not check(graph, definitions=definitions).findings
    graph["2"]["inputs"] = {}
    assert check(graph, definitions=definitions).would_run


def test_a_chain_that_comfyui_may_find_too_long_is_warned_of() -> None:
    """ComfyUI's validation is recursive; 0.3.64 fails at about 980 nodes."""

    def chain(length: int) -> dict[str, Any]:
        inner = {str(n): node("ImageInvert", image=[str(n - 1), 0]) for n in range(1, length)}
        return {"0": empty_image(), **inner, "end": shown(str(length - 1))}

    assert not check(chain(600)).findings
    verdict = check(chain(1200))
    assert verdict.would_run
    assert "chain" in only(verdict.findings).message


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), None, "1e3", "9" * 5000, [], {"__value__": []}, {}]
)
def test_what_cannot_be_converted_is_an_error_whatever_the_class(value: Any) -> None:
    assert not check({"1": node("TrialVal", choice="a", number=value)}).would_run


def test_many_wrong_nodes_and_long_lists_take_no_long_time() -> None:
    """5,000 nodes of 20 classes with 10,000 models each, and every node names a missing model: about a
    second."""
    info = {
        f"Loader{n}": loader([f"models/{n}/model-{m:05}.safetensors" for m in range(10_000)])
        for n in range(20)
    }
    graph = {str(n): node(f"Loader{n % 25}", model=f"my-model-{n}.safetensors") for n in range(5_000)}
    began = time.process_time()
    verdict = preflight(graph, Definitions(info), files=KnownFiles())
    assert time.process_time() - began < 8
    assert len(verdict.findings) == 5_000
    assert verdict.findings[0].nearest


def test_the_nearest_names() -> None:
    assert nearest("sd15.ckpt", ["SD15/sd15.safetensors", "flux.ckpt"]) == ["SD15/sd15.safetensors"]
    names = [f"model-{n:05}.safetensors" for n in range(3_000)]
    assert nearest("model-777.safetensors", names)[0] in {
        "model-00777.safetensors",
        "model-07777.safetensors",
    }
    assert nearest("", ["", "a"]) == [""]
    assert nearest("x", []) == []


def test_a_url_that_nothing_downloads_says_what_does() -> None:
    for url in ("https://example.com/m.safetensors", "s3://b/a.png", "hf://me/repo/m.safetensors"):
        assert not_in_list("ckpt_name", url, "; it has: a").endswith(f"has not got; it has: a{BY_URL}")
    assert BY_URL not in not_in_list("ckpt_name", "m.safetensors", "")
