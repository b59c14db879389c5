"""Preflight of dynamic inputs, compared with what a real ComfyUI 0.33.0 answered and ran.

`data/verdicts_dynamic.json` has graphs with the status of POST /prompt, the errors, and how the run of an
accepted graph ended. The classes are in `data/verdicts_dynamic_object_info.json`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.workflows.findings import Severity, errors
from comfyui_workflow.workflows.listed_spellings import with_listed_spellings
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles, referenced_files
from comfyui_workflow.workflows.validation.preflight import Verdict, preflight

DATA = Path(__file__).parent / "data"
OBJECT_INFO: dict[str, Any] = json.loads((DATA / "verdicts_dynamic_object_info.json").read_text())
RECORDED: list[dict[str, Any]] = json.loads((DATA / "verdicts_dynamic.json").read_text())
NAMES = [each["name"] for each in RECORDED]
HASH = "blake3:" + "0" * 64
MODELS = ["flux-dev.safetensors", "flux-schnell.safetensors", "sub/wan.safetensors"]


def check(graph: dict[str, Any], object_info: dict[str, Any] = OBJECT_INFO) -> Verdict:
    return preflight(graph, Definitions(object_info), files=KnownFiles(is_asked=True))


@pytest.mark.parametrize("recorded", RECORDED, ids=NAMES)
def test_nothing_that_ran_is_refused_and_nothing_refused_passes(recorded: dict[str, Any]) -> None:
    verdict = check(recorded["graph"])
    if recorded["ran"] == "success":
        assert verdict.would_run, errors(verdict.findings)
    if recorded["status"] != 200:
        assert not verdict.would_run


@pytest.mark.parametrize("recorded", RECORDED, ids=NAMES)
def test_the_errors_are_at_the_same_inputs(recorded: dict[str, Any]) -> None:
    findings = check(recorded["graph"]).findings
    places = {(finding.node_id, finding.input_name) for finding in findings}
    for node_id, kind, name in recorded["errors"]:
        if kind.startswith("exception_") or kind == "dependency_cycle":  # told at another node of the chain
            assert findings
        else:
            assert (node_id, name) in places


@pytest.mark.parametrize(
    ("name", "input_name", "code"),
    [
        ("resize: no type", "resize_type", "required_input_missing"),
        ("resize: unknown type", "resize_type", "value_not_in_list"),
        ("video: unknown format", "format", "value_not_in_list"),
        ("image: unknown format", "format", "value_not_in_list"),
    ],
)
def test_what_comfyui_accepts_but_cannot_run_is_an_error(name: str, input_name: str, code: str) -> None:
    (recorded,) = [each for each in RECORDED if each["name"] == name]
    assert recorded["status"] == 200
    assert recorded["ran"].startswith("error: TypeError")
    (finding,) = errors(check(recorded["graph"]).findings)
    assert (finding.input_name, finding.code) == (input_name, code)


def with_models(module: str = "comfy_extras.x", **of_option: Any) -> dict[str, Any]:
    """Returns the classes with one whose models depend on a choice."""
    inputs = {"unet_name": ["COMBO", {"options": MODELS}], **of_option}
    options = [{"key": "local", "inputs": {"required": inputs}}, {"key": "none", "inputs": {}}]
    declared = {"required": {"source": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]}}
    loader = {"input": declared, "output": ["IMAGE"], "python_module": module, "is_input_list": False}
    return {**OBJECT_INFO, "Loader": loader}


def loaded(**inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "Loader", "inputs": inputs},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_a_model_of_an_option_is_told_with_the_nearest() -> None:
    graph = loaded(source="local", **{"source.unet_name": "flux_dev_fp8.safetensors"})
    (finding,) = errors(check(graph, with_models()).findings)
    assert (finding.input_name, finding.code) == ("source.unet_name", "value_not_in_list")
    assert finding.nearest[0] == "flux-dev.safetensors"
    graph["1"]["inputs"]["source"] = "none"
    assert check(graph, with_models()).would_run


def test_a_model_of_an_option_is_spelled_as_the_instance_lists_it() -> None:
    graph = loaded(source="local", **{"source.unet_name": "sub\\wan.safetensors"})
    found = with_listed_spellings(graph, Definitions(with_models()))
    assert found["1"]["inputs"]["source.unet_name"] == "sub/wan.safetensors"


def test_a_file_of_an_option_is_a_file() -> None:
    info = with_models(image=["COMBO", {"options": ["a.png"], "image_upload": True}])
    graph = loaded(source="local", **{"source.unet_name": MODELS[0], "source.image": "b.png"})
    (file,) = referenced_files(graph, Definitions(info))
    assert (file.input_name, file.folder, file.name) == ("source.image", "input", "b.png")
    (finding,) = errors(check(graph, info).findings)
    assert (finding.input_name, finding.code) == ("source.image", "input_file_missing")


@pytest.mark.parametrize(
    ("module", "is_error"),
    [("comfy_extras.x", True), ("comfy_api_nodes.nodes_x", False), ("custom_nodes.pack", False)],
)
def test_other_classes_may_do_without_their_choice(module: str, is_error: bool) -> None:
    for inputs in ({}, {"source": "bogus"}):
        verdict = check(loaded(**inputs), with_models(module))
        assert (not verdict.would_run) == is_error
        assert verdict.findings


def test_the_inputs_of_an_option_are_required_of_every_class() -> None:
    (finding,) = errors(check(loaded(source="local"), with_models("custom_nodes.pack")).findings)
    assert (finding.input_name, finding.code) == ("source.unet_name", "required_input_missing")


def test_a_hash_of_an_asset_is_left_to_comfyui_where_a_model_is_named() -> None:
    graph = loaded(source="local", **{"source.unet_name": HASH})
    (finding,) = check(graph, with_models()).findings
    assert finding.severity is Severity.WARNING
    for no_hash in ("blake3:0", HASH.upper(), HASH + "0"):
        graph["1"]["inputs"]["source.unet_name"] = no_hash
        assert not check(graph, with_models()).would_run


def test_a_hash_of_an_asset_is_a_file_where_a_picture_is_loaded() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": HASH}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    definitions = Definitions(OBJECT_INFO)
    (file,) = referenced_files(graph, definitions)
    assert (file.folder, file.name) == ("input", HASH)
    there = KnownFiles(found=frozenset({("input", HASH)}), is_asked=True)
    assert preflight(graph, definitions, files=there).would_run
    assert not preflight(graph, definitions, files=KnownFiles(is_asked=True)).would_run


@pytest.mark.parametrize(
    ("has_key", "is_error"), [(True, True), (False, False)], ids=["after 0.8", "up to 0.8"]
)
def test_a_list_among_the_options_is_compared_as_the_version_does(has_key: bool, is_error: bool) -> None:
    info = json.loads(json.dumps(OBJECT_INFO))
    if not has_key:
        del info["ImageFlip"]["is_input_list"]
    (recorded,) = [each for each in RECORDED if each["name"] == "combo: v3 list"]
    assert (not check(recorded["graph"], info).would_run) == is_error


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"options": "x"},
        {"options": [None, 1, {}, {"key": "a", "inputs": []}]},
        {"template": {"input": {"required": {"x": 1}}, "prefix": 3, "min": "1", "max": "9"}},
        {"template": {"input": 1, "names": [None, 3]}},
    ],
)
@pytest.mark.parametrize("kind", ["COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"])
def test_odd_declarations_do_no_harm(kind: str, options: dict[str, Any]) -> None:
    odd = {
        "input": {"required": {"x": [kind, options]}},
        "output": ["IMAGE"],
        "python_module": "custom_nodes.p",
    }
    graph = {**loaded(x="a", **{"x.a": 1}), "1": {"class_type": "Odd", "inputs": {"x": "a", "x.a": 1}}}
    assert check(graph, {**OBJECT_INFO, "Odd": odd}).would_run


def test_options_inside_options_end() -> None:
    option: dict[str, Any] = {"key": "a", "inputs": {}}
    for _ in range(500):
        option = {"key": "a", "inputs": {"required": {"x": ["COMFY_DYNAMICCOMBO_V3", {"options": [option]}]}}}
    info = {"input": option["inputs"], "output": ["IMAGE"], "python_module": "custom_nodes.p"}
    inputs = {".".join(["x"] * depth): "a" for depth in range(1, 500)}
    graph = {**loaded(), "1": {"class_type": "Deep", "inputs": inputs}}
    assert check(graph, {**OBJECT_INFO, "Deep": info}).would_run
