"""Texts of a graph that name input files."""

import time
import unicodedata

import pytest

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.input_files import InputFiles, provided_names

PATHS = [
    "/home/me/pasted/x.png",
    "/home/me/a/y.png",
    "/home/me/b/y.png",
    "/home/me/clip.mp4",
    f"/home/me/{unicodedata.normalize('NFD', 'é')}.png",
    "/home/me/frames/",
]
DECOMPOSED = unicodedata.normalize("NFD", "é.png")


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("x.png", PATHS[0], "x.png"),
        ("pasted/x.png", PATHS[0], "pasted/x.png"),
        ("pasted\\x.png", PATHS[0], "pasted/x.png"),
        ("clipspace/x.png [input]", PATHS[0], "clipspace/x.png"),
        ("/home/me/pasted/x.png", PATHS[0], "x.png"),
        ("/elsewhere/x.png", PATHS[0], "x.png"),
        ("~/pasted/x.png", PATHS[0], "x.png"),
        ("../../x.png", PATHS[0], "x.png"),
        ("..\\x.png", PATHS[0], "x.png"),
        ("a/../x.png", PATHS[0], "x.png"),
        ("C:\\Users\\me\\x.png", PATHS[0], "x.png"),
        ("a/y.png", PATHS[1], "a/y.png"),
        (PATHS[2], PATHS[2], "y.png"),
        ("input/clip.mp4", PATHS[3], "clip.mp4"),
        ("/workspace/ComfyUI/input/shots/clip.mp4", PATHS[3], "shots/clip.mp4"),
        ("é.png", PATHS[4], "é.png"),
        (DECOMPOSED, PATHS[4], DECOMPOSED),
        ("frames", PATHS[5], "frames"),
        ("frames/", PATHS[5], "frames"),
        ("input/frames", PATHS[5], "frames"),
        ("frames/0001.png", PATHS[5], "frames"),
        ("shots/frames", PATHS[5], "shots/frames"),
    ],
)
def test_a_text_names_a_file(text: str, path: str, name: str) -> None:
    files = InputFiles(PATHS)
    references = files.references([text, "a prompt", ""])
    assert {each: found.path for each, found in references.items()} == {text: path}
    assert files.names(references)[path] == name


@pytest.mark.parametrize(
    "text",
    [
        "x.png [output]",
        "x.png [temp]",
        "a prompt\nx.png",
        "X.PNG",
        "ax.png",
        "clip.mp4/x",
        "other/y.png",
        "frames2",
        "/",
        "..",
        "x" * 5000,
        "\\",
    ],
)
def test_another_text_names_none(text: str) -> None:
    assert InputFiles(PATHS).references([text]) == {}


def test_a_name_of_two_files_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r'2 different files called "y.png": /home/me/a/y.png, '):
        InputFiles(PATHS).references(["y.png"])


@pytest.mark.parametrize(
    ("text", "remote", "value"),
    [
        ("x.png", "x-1.png", "x-1.png"),
        ("x.png [input]", "x.png", "x.png [input]"),
        ("pasted\\x.png [input]", "pasted/x.png", "pasted/x.png [input]"),
        ("input/clip.mp4", "clip.mp4", "input/clip.mp4"),
        ("frames/1.png", "frames-a", "frames-a/1.png"),
    ],
)
def test_the_rest_of_the_text_is_kept(text: str, remote: str, value: str) -> None:
    assert InputFiles(PATHS).references([text])[text].value(remote) == value


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("x.png", False),
        ("pasted/x.png", False),
        ("input/clip.mp4", True),
        (PATHS[0], True),
        ("~/x.png", True),
    ],
)
def test_a_path_is_told_from_a_name(text: str, is_path: bool) -> None:
    assert InputFiles(PATHS).references([text])[text].is_path is is_path


def test_a_file_that_is_named_is_not_guessed_for_another_name() -> None:
    assert {*InputFiles(PATHS).references(["x.png", "other/x.png"])} == {"x.png"}


def test_no_two_files_get_one_name() -> None:
    files = InputFiles(["/a/x.png", "/b/x.png", "/c/x.png", "/a/x.png"])
    references = files.references(["/b/x.png", "c/x.png"])
    assert files.names(references) == {"/b/x.png": "x.png", "/c/x.png": "c/x.png", "/a/x.png": "x-2.png"}


def test_provided_names() -> None:
    graph = {"1": {"class_type": "X", "inputs": {"image": "pasted\\x.png [input]", "seed": 1, "l": ["2", 0]}}}
    assert provided_names(graph, PATHS[:2]) == {"pasted\\x.png", "y.png"}


def test_many_files_of_one_name_are_found_soon() -> None:
    paths = [f"/shots/{number}/x.png" for number in range(10_000)]
    began = time.process_time()
    files = InputFiles(paths)
    assert len(files.references([*paths, *(path[7:] for path in paths)])) == 20_000
    assert time.process_time() - began < 10
