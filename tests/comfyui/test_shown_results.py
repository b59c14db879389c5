"""Results that a node shows: files, texts and paths, in every shape that node packs use."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.output_locations import candidates, located
from comfyui_workflow.comfyui.shown_results import read_shown
from comfyui_workflow.files.atomic_placement import safe_relative_path
from comfyui_workflow.runs.model import OutputFile
from tests.fuzz.effort import effort
from tests.fuzz.test_output_names import names
from tests.fuzz.values import objects

KNOWN = Directories(input_dir="/c/input", output_dir="/c/output", temp_dir="/c/temp")


def texts(ui: Any) -> str | None:
    found = read_shown("5", ui).text
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("ui", "text"),
    [
        ({"text": ["a", "b"], "tags": ["1girl, solo"]}, "ab\n1girl, solo"),
        ({"string": list("hello world")}, "hello world"),
        ({"text": ["one", "two"]}, "one\ntwo"),
        ({"value": [3, 4.5]}, "3\n4.5"),
        ({"animated": [True]}, None),
        ({"images": ["filename", "subfolder", "type"]}, None),  # the keys of an object, without its values
        ({"text": ["type", "filename of it"]}, "type\nfilename of it"),
        ({"text": [""]}, ""),
        ({}, None),
        ("no object", None),
        ({"count": [3], "images": [{"filename": "a.png"}]}, None),
        ({"dims": [1024, 768]}, None),
        ({"histogram": [1, 2, 3], "input_bboxes": [{"x": 1}]}, None),
        ({"compositor_inputs": ["392c5cfe"], "images": [{"filename": "a.png"}]}, None),
        ({"dims": [8, 8], "text": ["a cat"]}, "a cat"),
        ({"caption": ["a cat"], "images": [{"filename": "a.png"}]}, "a cat"),
        ({"files": ["/c/output/a.png"], "images": [{"filename": "a.png"}]}, None),
    ],
)
def test_texts_are_found_under_any_key(ui: Any, text: str | None) -> None:
    assert texts(ui) == text


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("3d/ComfyUI_00001_.glb", True),
        ("C:\\ComfyUI\\output\\a.mp4", True),
        ("a.png [temp]", True),
        ("/workspace/out put/x.tar.gz", True),
        ("a cat. ", False),
        ("a sentence that ends with a point.", False),
        ("two lines\na.png", False),
        (".png", False),
        ("x" * 2000 + ".png", False),
    ],
)
def test_a_text_that_looks_like_a_path(text: str, is_path: bool) -> None:
    assert [path.text for path in read_shown("5", {"result": [text, {"camera": 1}]}).paths] == [
        text
    ] * is_path


def test_paths_inside_of_objects_are_found_but_not_those_of_a_file() -> None:
    ui = {
        "videos": [{"name": "x", "path": "/c/output/v.mp4"}],
        "gifs": [{"filename": "a.gif", "workflow": "a.png"}],
    }
    shown = read_shown("5", ui)
    assert [path.text for path in shown.paths] == ["/c/output/v.mp4"]
    assert [file.filename for file in shown.files] == ["a.gif"]


@pytest.mark.parametrize(
    ("filename", "subfolder", "place"),
    [
        ("a.png", "x/y", ("output", "x/y", "a.png")),
        ("x/a.png", "", ("output", "x", "a.png")),
        ("./a.png", ".", ("output", "", "a.png")),
        ("a.png", "x\\y", ("output", "x/y", "a.png")),
        ("a.png", "x/../y", ("output", "y", "a.png")),
        ("/c/output/z/a.png", "", ("output", "z", "a.png")),
        ("a.png", "/c/temp", ("temp", "", "a.png")),
        ("a.png", "../temp/z", ("temp", "z", "a.png")),
        ("a.png", "../../tmp/z", ("/tmp/z", "", "a.png")),
        ("/data/my out/a.png", "ignored", ("/data/my out", "", "a.png")),
        ("a.png", "D:\\art", ("/D:/art", "", "a.png")),
    ],
)
def test_a_file_is_where_its_node_says(filename: str, subfolder: str, place: tuple[str, str, str]) -> None:
    output = OutputFile(filename=filename, subfolder=subfolder)
    found = located(output, lambda: KNOWN)
    assert (found.folder, found.subfolder, found.filename) == place
    assert safe_relative_path(found) is not None


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("..", ""),
        (".", ""),
        ("passwd", "/etc"),
        ("id_rsa", "/data"),
        ("a.png", "/root/.ssh"),
        ("a.png", "../.x"),
    ],
)
def test_a_place_that_no_output_has_stays_unsafe(filename: str, subfolder: str) -> None:
    output = OutputFile(filename=filename, subfolder=subfolder)
    found = located(output, lambda: KNOWN)
    assert safe_relative_path(found) is None or not found.folder.startswith("/")


def test_without_known_directories_a_place_outside_is_unsafe() -> None:
    output = OutputFile(filename="a.png", subfolder="../x")
    assert located(output, Directories) is output


def test_the_places_of_a_shown_path() -> None:
    assert [each.folder for each in candidates("bg.png", KNOWN)] == ["output", "temp"]
    assert [(each.folder, each.filename) for each in candidates("temp/bg.png", KNOWN)][-1] == (
        "temp",
        "bg.png",
    )
    (annotated,) = candidates("x/a.glb [temp]", KNOWN)
    assert (annotated.folder, annotated.subfolder, annotated.file_type.value) == ("temp", "x", "3d")
    assert [each.folder for each in candidates("/c/output/a.glb", KNOWN)] == ["output"]


@effort(300)
@given(filename=names.filter(bool), subfolder=names)
def test_whatever_a_node_says_an_output_is_below_the_directory_or_refused(
    filename: str, subfolder: str
) -> None:
    found = located(OutputFile(filename=filename, subfolder=subfolder), lambda: KNOWN)
    relative = safe_relative_path(found)
    assert relative is None or ".." not in relative.parts
    assert replace(found, folder="", filename="", subfolder="") == OutputFile(filename="", folder="")


@effort(300)
@given(objects)
def test_whatever_a_node_shows_can_be_read(ui: Any) -> None:
    shown = read_shown("5", ui)
    assert all(isinstance(file.filename, str) and file.filename for file in shown.files)
