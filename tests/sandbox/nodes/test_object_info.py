"""Declarations of our node classes, compared with those of a real ComfyUI 0.3.64. Clients validate graphs
with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.sandbox.nodes import NODE_CLASSES
from tests.sandbox.nodes.context import Context

# The recorded /object_info, without its prose, and with [] for lists of files (they depend on the machine).
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "object_info.json").read_text())
FILE_LISTS = {"image", "ckpt_name", "vae_name", "lora_name"}
IN_COMMON = sorted(NODE_CLASSES.keys() & RECORDED.keys())


def test_only_the_nodes_to_test_with_are_our_own() -> None:
    assert NODE_CLASSES.keys() - RECORDED.keys() == {
        "SandboxCombine",
        "SandboxExport",
        "SandboxFiles",
        "SandboxMetaBatch",
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
    assert RECORDED.keys() <= NODE_CLASSES.keys()


@pytest.mark.parametrize("name", IN_COMMON)
def test_it_declares_the_same_inputs(name: str, context: Context) -> None:
    declared = NODE_CLASSES[name].input_types(context.folders)
    assert _facts(declared) == RECORDED[name]["input"]
    assert {section: [*inputs] for section, inputs in declared.items()} == RECORDED[name]["input_order"]


@pytest.mark.parametrize("name", IN_COMMON)
def test_it_declares_the_same_outputs(name: str) -> None:
    node_class, recorded = NODE_CLASSES[name], RECORDED[name]
    assert list(node_class.RETURN_TYPES) == recorded["output"]
    assert list(node_class.RETURN_NAMES or node_class.RETURN_TYPES) == recorded["output_name"]
    assert recorded["output_node"] == node_class.OUTPUT_NODE
    assert recorded["category"] == node_class.CATEGORY


@pytest.mark.parametrize("name", IN_COMMON)
def test_it_has_the_same_name_unless_it_is_a_stand_in(name: str) -> None:
    real_name = RECORDED[name]["display_name"] or ""
    node_class = NODE_CLASSES[name]
    if real_name != node_class.DISPLAY_NAME:
        assert f"{real_name} (stand-in)" == node_class.DISPLAY_NAME
        assert node_class.DESCRIPTION.startswith("Stand-in of the sandbox")


def test_what_needs_a_model_says_that_it_is_a_stand_in() -> None:
    of_a_model = {"MODEL", "CLIP", "VAE", "CONDITIONING"}
    for name in IN_COMMON:
        inputs = RECORDED[name]["input"].get("required", {}).values()
        if of_a_model & {*RECORDED[name]["output"], *(str(declared[0]) for declared in inputs)}:
            assert NODE_CLASSES[name].DISPLAY_NAME.endswith("(stand-in)")


def _facts(declared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    words = json.loads(json.dumps(declared))
    for inputs in words.values():
        for name, declaration in inputs.items():
            if name in FILE_LISTS and isinstance(declaration[0], list):
                declaration[0] = []
            if declaration[1:] and isinstance(declaration, list):
                declaration[1].pop("tooltip", None)
                inputs[name] = declaration if declaration[1] else declaration[:1]
    return words
