"""Names in the spelling of another system."""

import unicodedata
from typing import Any

import pytest

from comfyui_workflow.workflows.listed_spellings import unlisted_names, with_listed_spellings
from comfyui_workflow.workflows.node_definitions import Definitions

DECOMPOSED = unicodedata.normalize("NFD", "é.png")
DEFINITIONS = Definitions(
    {
        "Model": {
            "input": {
                "required": {
                    "name": [["Flux/a.safetensors", "b.safetensors", "x/y", "x\\y"]],
                    "windows": ["COMBO", {"options": ["Flux\\a.safetensors", 1]}],
                    "text": ["STRING", {}],
                }
            }
        },
        "LoadImage": {"input": {"required": {"image": [[DECOMPOSED], {"image_upload": True}]}}},
    }
)


def corrected(class_type: str, **inputs: Any) -> Any:
    return with_listed_spellings({"1": {"class_type": class_type, "inputs": inputs}}, DEFINITIONS)["1"][
        "inputs"
    ]


@pytest.mark.parametrize(
    ("class_type", "name", "value", "expected"),
    [
        ("Model", "name", "Flux\\a.safetensors", "Flux/a.safetensors"),
        ("Model", "windows", "Flux/a.safetensors", "Flux\\a.safetensors"),
        ("Model", "windows", "Flux\\a.safetensors", "Flux\\a.safetensors"),
        ("Model", "name", "flux\\a.safetensors", "flux\\a.safetensors"),
        ("Model", "name", "x\\y", "x\\y"),
        ("Model", "name", "x/y", "x/y"),
        ("Model", "text", "Flux\\a.safetensors", "Flux\\a.safetensors"),
        ("Model", "other", "Flux\\a.safetensors", "Flux\\a.safetensors"),
        ("Unknown", "name", "Flux\\a.safetensors", "Flux\\a.safetensors"),
        ("LoadImage", "image", "é.png", DECOMPOSED),
        ("LoadImage", "image", "pasted\\a.png [input]", "pasted/a.png [input]"),
        ("LoadImage", "image", ["5", 0], ["5", 0]),
    ],
)
def test_a_value_is_spelled_as_the_instance_lists_it(
    class_type: str, name: str, value: object, expected: object
) -> None:
    assert corrected(class_type, **{name: value}) == {name: expected}


def test_an_unlisted_name_may_be_spelled_otherwise() -> None:
    names = ("é.png", DECOMPOSED, "a.png", "pasted/é.png", ["5", 0])
    graph = {str(at): {"class_type": "LoadImage", "inputs": {"image": name}} for at, name in enumerate(names)}
    assert unlisted_names(graph, DEFINITIONS) == {"é.png"}
    assert unlisted_names({"1": {"class_type": "Model", "inputs": {"name": "é"}}}, DEFINITIONS) == frozenset()
    assert (
        unlisted_names({"1": {"class_type": "LoadImage"}, "2": {"class_type": "X"}}, DEFINITIONS)
        == frozenset()
    )


def test_a_graph_that_needs_nothing_stays_the_same_object() -> None:
    graph = {"1": {"class_type": "Model", "inputs": {"name": "b.safetensors", "n": {"a": [1, "é/"]}}}}
    assert with_listed_spellings(graph, DEFINITIONS) is graph
