"""Whatever an instance calls an output: it lies in the output directory, or is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.files.atomic_placement import safe_relative_path
from comfyui_workflow.runs.model import OutputFile
from tests.fuzz.effort import effort

ROOT = Path("/somewhere/outputs")
PIECES = [
    "..",
    ".",
    "/",
    "\\",
    "a",
    "b.png",
    "",
    " ",
    "~",
    "\0",
    "\n",
    "é",
    "\ud83d",
    "%2e",
    "C:",
    "x" * 256,
    "-",
    "…",
    "／",
    "٠",
]
names = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map("".join) | st.text()


@effort(500)
@given(filename=names, subfolder=names | st.lists(names, max_size=4).map("/".join))
def test_an_output_never_leaves_the_directory(filename: str, subfolder: str) -> None:
    found = safe_relative_path(OutputFile(filename=filename, subfolder=subfolder))
    if found is None:
        return
    place = (ROOT / found).resolve()
    assert place.is_relative_to(ROOT)
    assert place != ROOT
    assert found.name[1:] == filename.rsplit("\\", maxsplit=1)[-1][1:]
    assert not any(part.startswith(".") for part in found.parts)
    assert all(0 < len(part.encode()) <= 255 for part in found.parts)
    assert str(found).isprintable() or not any(ord(letter) < 32 for letter in str(found))


@pytest.mark.parametrize(
    "hostile",
    [
        {"filename": "\ud83d.png"},
        {"subfolder": "a/" * 1500},
        {"filename": "x" * 256},
        {"filename": ".comfyui_workflow_1700000000_abc.part"},
    ],
)
def test_a_name_that_nothing_can_be_called_is_refused(hostile: dict[str, str]) -> None:
    good = OutputFile(filename="a.png", subfolder="sub/folder")
    assert safe_relative_path(good) == Path("sub/folder/a.png")
    assert safe_relative_path(replace(good, **hostile)) is None
