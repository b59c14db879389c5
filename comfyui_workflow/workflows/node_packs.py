"""The node packs that an editor file names: the editor stores with each node where its class came from.

`properties.cnr_id` is an id in ComfyUI's registry, `properties.aux_id` an `owner/repository` at GitHub, and
`properties.ver` a version (`1.2.3`) or a commit.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.editor.file import RENAMED_CLASSES, Mode
from comfyui_workflow.workflows.node_definitions import Definitions

_OWN = frozenset({"comfy-core", "comfyui"})
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class NodePack:
    registry_id: str | None
    repository: str | None
    """`owner/name` at GitHub."""
    version: str | None = None
    """A version or a commit. None: the newest."""

    @property
    def name(self) -> str:
        """Name of its directory."""
        return self.registry_id or (self.repository or "").partition("/")[2].removesuffix(".git")


@dataclass(frozen=True, kw_only=True)
class LackingPack:
    pack: NodePack
    class_types: tuple[str, ...]
    """Classes of the pack that the workflow uses and the instance does not have."""


def lacking_packs(editor_file: Mapping[str, Any] | None, definitions: Definitions) -> list[LackingPack]:
    """Returns the packs of node classes that the instance does not have, once each."""
    found: dict[str, tuple[NodePack, list[str]]] = {}
    for node in _nodes(editor_file):
        given = as_text(node.get("type")) or ""
        class_type = RENAMED_CLASSES.get(given, given)
        pack = _pack(as_object(node.get("properties")))
        is_left_out = node.get("mode") in (Mode.MUTED, Mode.BYPASSED)
        if pack is None or is_left_out or not class_type or class_type in definitions:
            continue
        _, classes = found.setdefault(pack.name, (pack, []))
        if class_type not in classes:
            classes.append(class_type)
    return [LackingPack(pack=pack, class_types=tuple(classes)) for pack, classes in found.values()]


def _nodes(editor_file: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yields all nodes, also those in subgraphs; not the nodes that stand for a subgraph."""
    pending: list[Mapping[str, Any]] = [as_object(editor_file)]
    for graph in pending:
        pending.extend(map(as_object, as_list(as_object(graph.get("definitions")).get("subgraphs"))))
    subgraphs = {as_text(graph.get("id")) for graph in pending[1:]}
    for graph in pending:
        for node in map(as_object, as_list(graph.get("nodes"))):
            if node.get("type") not in subgraphs:
                yield node


def _pack(properties: Mapping[str, Any]) -> NodePack | None:
    registry_id = _matching(_ID, properties.get("cnr_id"))
    repository = _matching(_REPOSITORY, properties.get("aux_id"))
    if registry_id in _OWN or (registry_id is None and repository is None):
        return None
    pack = NodePack(
        registry_id=registry_id, repository=repository, version=_matching(_VERSION, properties.get("ver"))
    )
    return pack if _ID.fullmatch(pack.name) and ".." not in pack.name else None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
