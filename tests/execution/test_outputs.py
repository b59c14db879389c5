"""Download of output files from an instance whose files are in a dictionary."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.history import HistoryEntry, wanted_outputs
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, RemoteFileMissing, Stopped, StoreError
from comfyui_workflow.execution.live_progress import LiveRun
from comfyui_workflow.execution.outputs import NOT_SAFE, OutputFetcher, is_lost, missing_sentence
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile, version_of
from comfyui_workflow.workflows.graph import Graph
from tests.runs.test_state_machine import new_run


@dataclass
class Instance:
    """The parts of a session that downloads use: files, ComfyUI, directories."""

    contents: dict[str, bytes] = field(default_factory=dict)
    viewed: dict[str, bytes] = field(default_factory=dict)
    own: Directories = field(default_factory=Directories)
    trouble: Exception | None = None
    times_asked: int = 0

    @property
    def connection(self) -> "Instance":
        return self

    files = client = connection

    def directories(self) -> Directories:
        self.times_asked += 1
        return self.own

    def fetch(self, remote: str, part: LocalPart, *, progress: Callable[[int, int], None]) -> RemoteFile:
        if remote not in self.contents:
            raise RemoteFileMissing(f"{remote} is not there")
        content = self.contents[remote]
        start = part.begin(len(content), version_of(len(content), 7))
        part.write(content[start : start + 3])
        progress(start + 3, len(content))
        if self.trouble:
            raise self.trouble
        part.write(content[start + 3 :])
        modified_at = datetime.fromtimestamp(7, UTC)
        return RemoteFile(name="", size_bytes=len(content), modified_at=modified_at, is_directory=False)

    def view_info(self, filename: str, *, subfolder: str, folder: str) -> ViewedFile:
        return ViewedFile(pieces=iter([]))

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        return []

    def running_graphs(self) -> dict[str, Graph]:
        return {}

    @contextmanager
    def view(self, filename: str, *, subfolder: str, folder: str, start: int = 0) -> Iterator[ViewedFile]:
        if filename not in self.viewed:
            raise RemoteFileMissing(f"{filename} is not on the instance any more")
        yield ViewedFile(pieces=iter([self.viewed[filename]]))


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def fetcher(
    instance: Instance,
    output_dir: Path,
    stop: CancelToken | None = None,
    live: LiveRun | None = None,
) -> OutputFetcher:
    run = new_run()
    run = replace(run, request=replace(run.request, output_dir=str(output_dir)))
    return OutputFetcher(cast(ComfyUISession, instance), run, stop or CancelToken(), live or LiveRun())


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_file_comes_from_the_configured_directory_then_comfyuis_own_then_the_tunnel(
    output_dir: Path,
) -> None:
    own = Directories(output_dir="/own")
    for place, instance in {
        "/o/s/a.bin": Instance({"/o/s/a.bin": b"first", "/own/s/a.bin": b"second"}, own=own),
        "/own/s/a.bin": Instance({"/own/s/a.bin": b"second"}, {"a.bin": b"third"}, own=own),
    }.items():
        got = fetcher(instance, output_dir / place[1:3]).fetch(OutputFile(filename="a.bin", subfolder="s"))
        assert got.remote_path == place
        assert Path(got.local_path or "").read_bytes() == instance.contents[place]
    got = fetcher(Instance(viewed={"a.bin": b"third"}), output_dir).fetch(OutputFile(filename="a.bin"))
    assert (got.is_downloaded, got.size_bytes) == (True, 5)


def test_comfyuis_own_word_is_asked_for_only_when_it_is_needed(output_dir: Path) -> None:
    instance = Instance({"/o/a.bin": b"a", "/own/b.bin": b"b"}, own=Directories(output_dir="/own"))
    assert fetcher(instance, output_dir).fetch(OutputFile(filename="a.bin")).is_downloaded
    assert instance.times_asked == 0
    assert fetcher(instance, output_dir).fetch(OutputFile(filename="b.bin")).is_downloaded
    assert instance.times_asked == 1


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("../a.bin", ""), ("/etc/a.bin", ""), ("..", ""), (".", ""), ("a\\b.bin", ""), ("a\nb.bin", ""),
        ("a\0.bin", ""), ("n" * 300, ""), ("é" * 130, ""), ("a.bin", ".."), ("a.bin", "../x"),
        ("a.bin", "x/../.."),
        ("a.bin", "/etc"), ("a.bin", "x\ty"), ("a.bin", "x\\..\\.."), ("\x7f.bin", ""),
    ],
)  # fmt: skip
def test_a_hostile_name_is_said_and_nothing_is_written(
    output_dir: Path, filename: str, subfolder: str
) -> None:
    instance = Instance(viewed={filename: b"x"})
    got = fetcher(instance, output_dir).fetch(OutputFile(filename=filename, subfolder=subfolder))
    assert not got.is_downloaded
    assert "not safe" in (got.error or "")
    assert not output_dir.exists()


def test_names_that_differ_in_case_and_a_file_that_is_there_both_stay(output_dir: Path) -> None:
    instance = Instance({"/o/A.bin": b"upper", "/o/a.bin": b"lower"})
    output_dir.mkdir()
    (output_dir / "a.bin").write_bytes(b"mine")
    for name in ("A.bin", "a.bin", "a.bin"):
        assert fetcher(instance, output_dir).fetch(OutputFile(filename=name)).is_downloaded
    assert files_in(output_dir) == {"A.bin": b"upper", "a.bin": b"mine", "a (1).bin": b"lower"}


def test_a_symlink_in_the_place_is_not_written_through(output_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    output_dir.mkdir()
    (output_dir / "a.bin").symlink_to(tmp_path / "victim")
    got = fetcher(Instance({"/o/a.bin": b"new"}), output_dir).fetch(OutputFile(filename="a.bin"))
    assert Path(got.local_path or "").name == "a (1).bin"
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_without_hard_links_nothing_is_overwritten_either(
    output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", link)
    output_dir.mkdir()
    (output_dir / "a.bin").write_bytes(b"mine")
    got = fetcher(Instance({"/o/a.bin": b"new"}), output_dir).fetch(OutputFile(filename="a.bin"))
    assert got.is_downloaded
    assert files_in(output_dir) == {"a.bin": b"mine", "a (1).bin": b"new"}


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [
        (ConnectionFailed("cut"), ConnectionFailed),
        (Stopped("the server is stopping"), Stopped),
        (OSError(errno.ENOSPC, "No space left on device"), StoreError),
    ],
)
def test_what_breaks_off_leaves_no_half_file(
    output_dir: Path, trouble: Exception, raised: type[Exception]
) -> None:
    instance = Instance({"/o/a.bin": b"content"}, trouble=trouble)
    with pytest.raises(raised):
        fetcher(instance, output_dir).fetch(OutputFile(filename="a.bin"))
    assert files_in(output_dir) == {}


@pytest.mark.parametrize("has_hard_links", [True, False])
@pytest.mark.parametrize("times", [1, 9])
def test_a_part_that_somebody_removes_is_fetched_once_more(
    output_dir: Path, monkeypatch: pytest.MonkeyPatch, times: int, has_hard_links: bool
) -> None:
    removals = iter(range(times))

    def remove_parts() -> None:
        for part in output_dir.glob(".*.part"):
            if next(removals, None) is not None:
                part.unlink()

    def link(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    if not has_hard_links:
        monkeypatch.setattr(os, "link", link)
    instance = Instance({"/o/a.bin": b"content"})
    stop = CancelToken()
    monkeypatch.setattr(stop, "check", remove_parts)  # between the download and the placement
    got = fetcher(instance, output_dir, stop).fetch(OutputFile(filename="a.bin"))
    assert files_in(output_dir) == ({"a.bin": b"content"} if times == 1 else {})
    assert got.is_downloaded == (times == 1)
    assert got.error is None if times == 1 else "cannot be written" in (got.error or "")


def test_lasting_local_trouble_is_said_and_not_tried_for_ever(output_dir: Path) -> None:
    output_dir.mkdir()
    (output_dir / "s").write_bytes(b"a file where a directory is needed")
    instance = Instance({"/o/s/a.bin": b"content"})
    got = fetcher(instance, output_dir).fetch(OutputFile(filename="a.bin", subfolder="s"))
    assert "cannot be written" in (got.error or "")
    denied = StoreError("Cannot write it: Permission denied.")
    denied.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    got = fetcher(Instance({"/o/a.bin": b"x"}, trouble=denied), output_dir).fetch(
        OutputFile(filename="a.bin")
    )
    assert got.error == "Cannot write it: Permission denied."


def test_a_text_is_written_as_it_is(output_dir: Path) -> None:
    text = OutputFile(filename="text_5.txt", folder="text", text="grüße\n")
    got = fetcher(Instance(), output_dir).fetch(text)
    assert Path(got.local_path or "").read_text(encoding="utf-8") == "grüße\n"
    assert got.remote_path is None


def test_previews_are_wanted_when_asked_for_and_each_file_once() -> None:
    a, twice, preview = (
        OutputFile(filename=n, folder=f) for n, f in (("a", "output"), ("a", "output"), ("p", "temp"))
    )
    assert wanted_outputs((a, twice, preview), include_previews=False) == (a,)
    assert wanted_outputs((a, twice, preview), include_previews=True) == (a, preview)


def test_what_is_missing_is_named_with_its_reason() -> None:
    outputs: tuple[Any, ...] = (
        OutputFile(filename="a", local_path="/x/a"),
        OutputFile(filename="b", error="gone"),
    )
    sentence = missing_sentence(replace(new_run(), outputs=outputs))
    assert sentence is not None
    assert "1 of 2 outputs could not be fetched (b: gone)" in sentence
    assert "A retry fetches what is missing" in sentence
    assert missing_sentence(replace(new_run(), outputs=outputs[:1])) is None


@pytest.mark.parametrize(
    ("error", "lost", "advice"),
    [
        ("gone", False, "A retry fetches what is missing without running the prompt again"),
        (
            "it is cut short on the instance, after 5 bytes",
            False,
            "A file that is not whole there stays so: execute the run again",
        ),
        (NOT_SAFE, True, "execute the run again, with another name in the node that saves"),
        ("ComfyUI overwrote it", True, "A retry cannot fetch them: execute the run again"),
    ],
)
def test_a_retry_is_advised_only_where_it_can_help(error: str, lost: bool, advice: str) -> None:
    run = replace(new_run(), outputs=(OutputFile(filename="b", error=error, is_lost=lost),))
    assert (missing_sentence(run) or "").endswith(advice)
    assert is_lost(run) is lost


def test_a_directory_that_lacks_the_file_costs_nothing_of_what_came_from_another(output_dir: Path) -> None:
    """The configured directory is the wrong one, at every try."""
    content = os.urandom(2_000_000)
    instance = Instance({"/own/a.bin": content}, own=Directories(output_dir="/own"), trouble=Stopped("cut"))
    begun: list[int] = []

    def note(done_bytes: int) -> None:
        begun.append(done_bytes)

    live = LiveRun(on_bytes=lambda _direction, _filename, done_bytes: note(done_bytes))
    fetching = fetcher(instance, output_dir, live=live)
    for _ in range(3):
        with pytest.raises(Stopped):
            fetching.fetch(OutputFile(filename="a.bin"))
    assert begun == [3, 6, 9]
    instance.trouble = None
    assert fetching.fetch(OutputFile(filename="a.bin")).is_downloaded
    assert files_in(output_dir) == {"a.bin": content}
