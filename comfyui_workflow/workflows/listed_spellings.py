"""Corrects names of files and models that another system has spelled otherwise.

A workflow that was made on Windows names `Flux\\model.safetensors`; the choices of an instance on Linux have
a slash. A name from macOS may have decomposed letters. ComfyUI compares texts, so it would refuse both.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from comfyui_workflow.workflows.graph import Graph, with_replaced_texts
from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition
from comfyui_workflow.workflows.validation.files import names_files
from comfyui_workflow.workflows.validation.live_inputs import live_definition


def with_listed_spellings(graph: Graph, definitions: Definitions) -> Graph:
    """Returns the graph in which a value that is no choice of its input is replaced by the choice that
    differs only in its spelling. The same object if nothing changes."""
    known: dict[int, dict[str, str]] = {}

    def spelled(node: Mapping[str, Any], name: str, value: str) -> str:
        definition = definitions.get(node["class_type"])
        declared = live_definition(definition, node["inputs"]).input(name) if definition is not None else None
        if declared is None or not _has_spellings(value):
            return value
        if declared.choices and value not in declared.choices:
            if id(declared) not in known:
                known[id(declared)] = _by_normal_form(declared)
            listed = known[id(declared)].get(_normal(value))
            if listed is not None:
                return listed
        return value.replace("\\", "/") if names_files(node["class_type"], declared) else value

    return with_replaced_texts(graph, spelled)


def unlisted_names(graph: Graph, definitions: Definitions) -> frozenset[str]:
    """Returns the names of files that may be spelled otherwise on the instance, and that no choice is equal
    to."""
    return frozenset(_unlisted(graph, definitions))


def _unlisted(graph: Graph, definitions: Definitions) -> Iterator[str]:
    for node in graph.values():
        definition = definitions.get(node["class_type"])
        for declared in live_definition(definition, node.get("inputs")).inputs if definition else ():
            value = node.get("inputs", {}).get(declared.name)
            is_file = isinstance(value, str) and names_files(node["class_type"], declared)
            if is_file and not value.isascii() and "/" not in value and value not in (declared.choices or ()):
                yield value


def _by_normal_form(declared: InputDefinition) -> dict[str, str]:
    """Returns the choices by normal form, without those that share one."""
    found: dict[str, list[str]] = {}
    for choice in declared.choices or ():
        if isinstance(choice, str):
            found.setdefault(_normal(choice), []).append(choice)
    return {form: choices[0] for form, choices in found.items() if len(choices) == 1}


def _has_spellings(value: str) -> bool:
    return not value.isascii() or "\\" in value or "/" in value


def _normal(value: str) -> str:
    return unicodedata.normalize("NFC", value.replace("\\", "/"))
