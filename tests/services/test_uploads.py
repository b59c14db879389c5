"""Tests of uploaded files: which are kept, and which are removed after their time."""

import os
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from comfyui_workflow.errors import FileRefused, StoreError
from comfyui_workflow.services.uploads import LOOK_EVERY_S, Uploads

DAY_S = 86_400.0


@dataclass
class Made:
    """Uploads with a lifetime of ten days, and their clock."""

    directory: Path
    at_s: float = 1_700_000_000.0
    needed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.directory, 10 * DAY_S, lambda: self.needed, lambda: self.at_s)

    def keep(self, name: str, *, days_ago: float = 0) -> Path:
        place = self.uploads.keep(BytesIO(name.encode()), name)
        used_at_s = self.at_s - days_ago * DAY_S
        os.utime(place.parent, (used_at_s, used_at_s))
        return place


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "uploads")


def test_what_was_not_used_for_long_is_gone(made: Made) -> None:
    old, older, fresh = made.keep("a.png", days_ago=11), made.keep("b.png", days_ago=400), made.keep("c.png")
    assert made.uploads.remove_old() == 2
    assert (old.parent.exists(), older.parent.exists(), fresh.read_bytes()) == (False, False, b"c.png")
    assert made.uploads.remove_old() == 0


def test_what_a_run_has_yet_to_read_stays_however_old(made: Made) -> None:
    old, needed = made.keep("a.png", days_ago=11), made.keep("b.png", days_ago=400)
    made.needed = [str(needed), "/home/me/photo.png"]
    assert made.uploads.remove_old() == 1
    assert (old.exists(), needed.exists()) == (False, True)


def test_what_is_named_once_more_stays_as_long_again(made: Made, tmp_path: Path) -> None:
    again = made.keep("a.png", days_ago=400)
    made.uploads.used(again)
    made.uploads.used(tmp_path / "elsewhere" / "b.png")
    made.uploads.used(tmp_path)
    assert made.uploads.remove_old() == 0
    assert again.exists()


def test_who_brings_a_file_makes_room_for_it_once_a_day(made: Made) -> None:
    made.keep("first.png")
    old = made.keep("a.png", days_ago=11)
    made.keep("b.png")
    assert old.exists(), "it was looked for a moment ago"
    made.at_s += LOOK_EVERY_S + 1
    made.keep("c.png")
    assert not old.exists()


def test_nothing_there_is_nothing_to_forget(made: Made) -> None:
    assert made.uploads.remove_old() == 0


def test_what_else_lies_there_is_no_trouble(made: Made) -> None:
    stray = made.keep("a.png").parent.parent / "stray"
    stray.write_text("somebody's note")
    os.utime(stray, (0, 0))
    made.uploads.remove_old()
    assert stray.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "a\\..", "\0", "x" * 256, "a\nb"])
def test_a_name_that_is_none_is_refused(made: Made, name: str) -> None:
    with pytest.raises(FileRefused):
        made.uploads.path_for_upload(name)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("pasted/a.png", "pasted/a.png"),
        ("C:\\Users\\me\\a.png", "C:/Users/me/a.png"),
        ("../../pasted/a.png", "pasted/a.png"),
        ("/etc/a.png", "etc/a.png"),
        (".ssh/b/a.png", "b/a.png"),
        ("a/\0/b/a.png", "b/a.png"),
        ("/".join("abcdefghijkl"), "e/f/g/h/i/j/k/l"),
        ("x" * 300 + "/a.png", "a.png"),
    ],
)
def test_the_directories_of_a_name_are_kept_as_far_as_they_are_safe(made: Made, name: str, kept: str) -> None:
    path = made.uploads.keep(BytesIO(b"x"), name)
    directory = path.parents[len(Path(kept).parts) - 1]
    assert path.relative_to(directory) == Path(kept)
    assert directory.parent == made.keep("b.png").parent.parent
    assert {each.stat().st_mode & 0o077 for each in (directory, path.parent)} == {0}


def test_the_files_of_a_group_are_stored_together(made: Made) -> None:
    group = "0123456789abcdef"
    first, second = (made.uploads.keep(BytesIO(b"x"), f"frames/{n}.png", group) for n in (1, 2))
    assert first.parent == second.parent
    made.needed = [f"{second.parent}/"]
    os.utime(first.parents[1], (0, 0))
    assert made.uploads.remove_old() == 0
    with pytest.raises(StoreError, match="File exists"):
        made.uploads.keep(BytesIO(b"y"), "frames/1.png", group)
    for wrong in ("", "..", "0123456789abcdeg", "../0123456789abc", group * 2):
        with pytest.raises(FileRefused, match="16 random hexadecimal digits"):
            made.uploads.path_for_upload("a.png", wrong)


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="The file cannot be stored"):
        Made(tmp_path / "file" / "uploads").keep("a.png")
