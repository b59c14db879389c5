"""Declarations of our node classes, compared with real ComfyUIs. Clients validate graphs with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.nodes import NODE_CLASSES
from tests.sandbox.nodes.context import Context

# The recorded /object_info, without its prose, and with [] for lists of files (they depend on the machine).
VERSIONS = ("0.33.0", "0.3.64")
RECORDED: dict[str, dict[str, Any]] = {
    version: json.loads((Path(__file__).parent / f"object_info_{version}.json").read_text())
    for version in VERSIONS
}
FILE_LISTS = {"image", "ckpt_name", "vae_name", "lora_name"}
OUR_OWN = {
    "SandboxBrokenPack",
    "SandboxCombine",
    "SandboxExport",
    "SandboxModel",
    "SandboxFiles",
    "SandboxMetaBatch",
    "SandboxPartner",
    "SandboxRaise",
    "SandboxReadEditorFile",
    "SandboxSaveAs",
    "SandboxSaveCaption",
    "SandboxSaveDated",
    "SandboxSaveElsewhere",
    "SandboxShow",
    "SandboxShowFile",
    "SandboxSlow",
    "SandboxSound",
    "SandboxText",
    "SaveImageWebsocket",
}
EACH = [(version, name) for version in VERSIONS for name in sorted(RECORDED[version])]
PROSE = {"tooltip", "description", "search_aliases"}


def catalog(context: Context, version: str) -> Catalog:
    faults = FaultBoard()
    faults.change({"version": version})
    return Catalog(node_classes=NODE_CLASSES, folders=context.folders, faults=faults)


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_nodes_to_test_with_are_our_own(context: Context, version: str) -> None:
    assert {*catalog(context, version)} - RECORDED[version].keys() == OUR_OWN
    assert RECORDED[version].keys() <= {*catalog(context, version)}


@pytest.mark.parametrize(("version", "name"), EACH)
def test_it_declares_the_same_inputs(version: str, name: str, context: Context) -> None:
    declared = catalog(context, version).serialize(name)
    assert _facts(declared["input"]) == _facts(RECORDED[version][name]["input"])
    assert declared["input_order"] == RECORDED[version][name]["input_order"]


@pytest.mark.parametrize(("version", "name"), EACH)
def test_it_declares_the_same_outputs(version: str, name: str, context: Context) -> None:
    declared, recorded = catalog(context, version).serialize(name), RECORDED[version][name]
    for key in ("output", "output_name", "output_node", "category"):
        assert declared[key] == recorded[key], key


@pytest.mark.parametrize("name", sorted(RECORDED["0.33.0"]))
def test_it_has_the_same_flags_in_the_newest_version(name: str, context: Context) -> None:
    declared, recorded = catalog(context, "0.33.0").serialize(name), RECORDED["0.33.0"][name]
    left_out = {"input", "display_name", "python_module", *PROSE}
    for key in recorded.keys() - left_out:
        assert declared[key] == recorded[key], key
    may_have = {"description", "search_aliases", "essentials_category", "output_tooltips"}
    assert declared.keys() - recorded.keys() <= may_have


@pytest.mark.parametrize(("version", "name"), EACH)
def test_it_has_the_same_name_unless_it_is_a_stand_in(version: str, name: str, context: Context) -> None:
    declared = catalog(context, version).serialize(name)
    real_name = RECORDED[version][name]["display_name"] or name
    if real_name != declared["display_name"]:
        assert f"{real_name} (stand-in)" == declared["display_name"]
        assert declared["description"].startswith("Stand-in of the sandbox")


def test_what_needs_a_model_says_that_it_is_a_stand_in() -> None:
    of_a_model = {"MODEL", "CLIP", "VAE", "CONDITIONING"}
    for name, recorded in RECORDED["0.33.0"].items():
        inputs = recorded["input"].get("required", {}).values()
        if of_a_model & {*recorded["output"], *(str(declared[0]) for declared in inputs)}:
            assert NODE_CLASSES[name].DISPLAY_NAME.endswith("(stand-in)")


def test_a_partner_node_is_marked_in_every_version(context: Context) -> None:
    for version in VERSIONS:
        assert catalog(context, version).serialize("SandboxPartner")["api_node"] is True


def _facts(declared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the declarations without prose, without lists of files, and without empty options."""
    words = json.loads(json.dumps(declared))
    for inputs in words.values():
        for name, declaration in inputs.items():
            if name in FILE_LISTS and isinstance(declaration[0], list):
                declaration[0] = []
            if isinstance(declaration, list) and declaration[1:]:
                options = _without_prose(declaration[1])
                inputs[name] = [declaration[0], options] if options else declaration[:1]
    return dict(words)


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_prose(item) for key, item in value.items() if key not in PROSE}
    return [_without_prose(item) for item in value] if isinstance(value, list) else value
