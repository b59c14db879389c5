"""Prefixes of save nodes, and the sentences about prompts that ComfyUI has no record of."""

import pytest

from comfyui_workflow.execution.left_files import LeftFiles, Prefix, no_record_sentence, prefixes_of
from comfyui_workflow.runs.model import OutputFile


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("out", Prefix(directories=(), name="out")),
        ("night/%year%/out", Prefix(directories=("night", "%year%"), name="out")),
        ("night\\.\\out", Prefix(directories=("night",), name="out")),
        ("../out", None),
        ("", None),
        ("/", None),
        (["5", 0], None),
        (7, None),
    ],
)
def test_the_prefix_of_a_node_names_its_directory(given: object, expected: Prefix | None) -> None:
    graph = {"3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": given}}}
    assert prefixes_of(graph, ["3"]).get("3") == expected


def test_the_sentence_tells_what_was_found() -> None:
    for left, part in (
        (LeftFiles(directory="/out"), "but no file of it was found in /out"),
        (LeftFiles(directory="/out", candidates=("a", "b")), "these files in /out may be its own: a, b"),
        (LeftFiles(outputs=(OutputFile(filename="a"),)), "only some of its files were found"),
        (LeftFiles(), "its files cannot be searched for"),
    ):
        assert "It may have run" in no_record_sentence(left)
        assert part in no_record_sentence(left)
