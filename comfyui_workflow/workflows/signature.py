"""Signature of a graph: equal for graphs that should take about the same time on one instance."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model_files import is_model

_SEEDS = frozenset({"seed"})
_TEXTS = frozenset({"text", "prompt", "string", "caption", "prefix"})
_LONGEST_WORD = 128


def signature(graph: Graph) -> str:
    """Returns a hash of the classes, links, numbers, switches and short words (models, samplers) of a graph.

    Seeds, texts and names of input files are left out. Of a node that a seed or a text is linked to, only its
    class and its own links count.
    """
    left_out_sources = {source for node in graph.values() for source in _sources_of_left_out(_inputs(node))}
    nodes = [
        (node_id, node["class_type"], _counted_inputs(_inputs(node), only_links=node_id in left_out_sources))
        for node_id, node in sorted(graph.items())
    ]
    text = json.dumps(nodes, sort_keys=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def is_changed_by(values: Mapping[str, Any]) -> bool:
    """True if setting these inputs (keys: `<node id or title>.<input>`) can change the signature."""
    return any(_counts(name.rpartition(".")[2], value) for name, value in values.items())


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node.get("inputs") or {}


def _sources_of_left_out(inputs: Mapping[str, Any]) -> Iterable[str]:
    for name, value in inputs.items():
        match value:
            case [str() as source, int()] if _is_left_out(name):
                yield source


def _counted_inputs(inputs: Mapping[str, Any], *, only_links: bool) -> dict[str, Any]:
    counts = _is_link if only_links else _counts
    return {name: _canonical(value) for name, value in inputs.items() if counts(name, value)}


def _is_link(_name: str, value: object) -> bool:
    return isinstance(value, list)


def _counts(name: str, value: object) -> bool:
    if isinstance(value, list):
        return True
    if isinstance(value, str):
        return not _is_left_out(name) and _is_word(value)
    return not _has_word(_SEEDS, name)


def _is_word(text: str) -> bool:
    """True for the name of a model, sampler or mode; False for a sentence or the name of an input file."""
    if len(text) > _LONGEST_WORD:
        return False
    if is_model(text):
        return True
    has_ending = re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{1,4}", PurePosixPath(text).suffix)
    return not has_ending and re.search(r"\s", text) is None


def _is_left_out(name: str) -> bool:
    return _has_word(_SEEDS | _TEXTS, name)


@lru_cache(maxsize=4096)
def _has_word(words: frozenset[str], name: str) -> bool:
    return not words.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _canonical(value: object) -> object:
    """Converts a float without a fraction to an integer: 20.0 and 20 have one signature."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
