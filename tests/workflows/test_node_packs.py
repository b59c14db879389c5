"""The node packs that an editor file names."""

from typing import Any

import pytest

from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.node_packs import LackingPack, NodePack, lacking_packs

HAS = Definitions({"Own": {"input": {}, "output": []}})


def node(class_type: object = "Fancy", mode: int = 0, **properties: Any) -> dict[str, Any]:
    return {"id": 1, "type": class_type, "mode": mode, "properties": properties}


def file(*nodes: dict[str, Any], subgraphs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"nodes": list(nodes), "definitions": {"subgraphs": subgraphs or []}}


def test_packs_are_found_once_each_also_in_subgraphs() -> None:
    inner = {"id": "uuid", "nodes": [node("Deep", cnr_id="fancy", ver="1.2.3"), node("Own", cnr_id="x")]}
    found = lacking_packs(
        file(node(cnr_id="fancy", ver="1.2.3"), node("uuid", cnr_id="of-a-subgraph"), subgraphs=[inner]), HAS
    )
    pack = NodePack(registry_id="fancy", repository=None, version="1.2.3")
    assert found == [LackingPack(pack=pack, class_types=("Fancy", "Deep"))]


def test_a_repository_is_named_without_the_registry() -> None:
    (found,) = lacking_packs(file(node(aux_id="me/ComfyUI-Fancy", ver="a" * 40)), HAS)
    assert (found.pack.name, found.pack.version) == ("ComfyUI-Fancy", "a" * 40)


@pytest.mark.parametrize(
    "given",
    [
        node(),
        node(cnr_id="comfy-core"),
        node("Own", cnr_id="fancy"),
        node(cnr_id="fancy", mode=2),
        node(cnr_id="fancy", mode=4),
        node(cnr_id="../x"),
        node(cnr_id="-x"),
        node(cnr_id=5),
        node(aux_id="https://github.com/a/b"),
        node(aux_id="a/.."),
        node(class_type=None, cnr_id="fancy"),
    ],
)
def test_what_names_no_lacking_pack(given: dict[str, Any]) -> None:
    assert lacking_packs(file(given), HAS) == []


def test_a_version_that_could_be_an_option_is_left_out() -> None:
    (found,) = lacking_packs(file(node(cnr_id="fancy", ver="--upload-pack=x")), HAS)
    assert found.pack.version is None
    assert lacking_packs(None, HAS) == []
