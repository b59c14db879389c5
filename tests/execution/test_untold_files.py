"""The search for files that a node has saved without telling their names."""

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.execution.untold_files import MOST_DIRECTORIES, UntoldFiles
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.ssh.sftp.files import RemoteFile

BEGAN_S, ENDED_S = 1_000_000.5, 1_000_010.0


class Directories:
    """A directory tree: paths of files, with the whole second in which each was written."""

    def __init__(self, files: dict[str, int]) -> None:
        self.listed: list[str] = []
        self._files = files

    def list(self, path: str) -> tuple[RemoteFile, ...]:
        self.listed.append(path)
        found: dict[str, RemoteFile] = {}
        for name, at in self._files.items():
            if PurePosixPath(name).is_relative_to(path):
                first, *rest = PurePosixPath(name).relative_to(path).parts
                found[first] = RemoteFile(
                    name=first,
                    size_bytes=1,
                    modified_at=datetime.fromtimestamp(at, UTC),
                    is_directory=bool(rest),
                )
        return tuple(found.values())


def found(
    files: dict[str, int], inputs: dict[str, Any], *, shown: object = None, exact_s: float | None = None
) -> list[str]:
    entry = HistoryEntry(
        prompt_id="p",
        outcome=Outcome.SUCCESS,
        outputs=(),
        ui={"5": shown},
        window=(datetime.fromtimestamp(BEGAN_S, UTC), datetime.fromtimestamp(ENDED_S, UTC)),
    )
    graph = {"5": {"class_type": "Saver", "inputs": inputs}, "6": {"class_type": "Name", "inputs": {}}}

    def written_s(_: OutputFile) -> float | None:
        return exact_s

    untold = UntoldFiles(Directories(files), graph, "/o/output", entry, written_s)
    return sorted(str(PurePosixPath(each.subfolder, each.filename)) for each in untold.of("5"))


NEW, OLD, SAME_SECOND = 1_000_005, 900_000, 1_000_000
FILES = {"/o/output/a/new.png": NEW, "/o/output/a/old.png": OLD, "/o/output/b/c/new.txt": NEW}


@pytest.mark.parametrize(
    ("inputs", "shown", "expected"),
    [
        ({}, None, []),
        ({}, {"images": []}, ["a/new.png", "b/c/new.txt"]),
        ({}, {"images": ["filename", "subfolder", "type"]}, ["a/new.png", "b/c/new.txt"]),
        ({}, {"text": ["filename is a word"]}, []),
        ({"prefix": "a/%date%"}, None, ["a/new.png"]),
        ({"prefix": "b/{day}"}, None, ["b/c/new.txt"]),
        ({"prefix": ["6", 0]}, None, ["a/new.png", "b/c/new.txt"]),
        ({"text": "[a cat], 50%"}, None, []),
        ({"prefix": "../%date%"}, None, []),
        ({"prefix": "/tmp/%date%"}, None, []),
        ({"prefix": "/o/output/a/%date%"}, None, ["a/new.png"]),
    ],
)
def test_the_known_part_of_a_name_is_searched(
    inputs: dict[str, Any], shown: object, expected: list[str]
) -> None:
    assert found(FILES, inputs, shown=shown) == expected


@pytest.mark.parametrize(
    ("exact_s", "is_taken"),
    [(BEGAN_S - 0.3, False), (BEGAN_S + 0.1, True), (float("inf"), True), (None, True)],
)
def test_the_second_in_which_the_prompt_began_is_looked_at_closely(
    exact_s: float | None, is_taken: bool
) -> None:
    files = {"/o/output/a_1.png": SAME_SECOND}
    assert bool(found(files, {"prefix": "a"}, exact_s=exact_s)) is is_taken
    assert bool(found(files, {"prefix": "%date%"}, exact_s=exact_s)) is is_taken


def test_the_number_of_directories_is_limited() -> None:
    files = {f"/o/output/{number:04}/a.png": NEW for number in range(2 * MOST_DIRECTORIES)}
    assert 0 < len(found(files, {"prefix": "%date%"})) <= MOST_DIRECTORIES
