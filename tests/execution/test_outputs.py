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
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome, wanted_outputs
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    ConnectionFailed,
    RemoteFileError,
    RemoteFileMissing,
    Stopped,
    StoreError,
)
from comfyui_workflow.execution.file_identity import COMPARED_BYTES
from comfyui_workflow.execution.live_progress import LiveRun
from comfyui_workflow.execution.outputs import (
    NOT_SAFE,
    OutputFetcher,
    is_lost,
    missing_sentence,
    nodes_to_save_again,
)
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile, version_of
from comfyui_workflow.workflows.graph import Graph
from tests.runs.test_state_machine import new_run


@dataclass
class Instance:
    """The parts of a session that downloads use: files, ComfyUI, directories. ComfyUI has the files of
    `viewed` and of its own directory; without one, all files."""

    contents: dict[str, bytes] = field(default_factory=dict)
    viewed: dict[str, bytes] = field(default_factory=dict)
    own: Directories = field(default_factory=Directories)
    trouble: Exception | None = None
    view_trouble: Exception | None = None
    starts: list[int] = field(default_factory=list)
    """The first byte of each request for a file through ComfyUI."""
    reads: list[str] = field(default_factory=list)
    """The files that were read over SFTP."""

    @property
    def connection(self) -> "Instance":
        return self

    files = client = connection

    def directories(self) -> Directories:
        return self.own

    @contextmanager
    def opening(self, remote: str, *, progress: Callable[[int, int], None]) -> Iterator["Opening"]:
        yield Opening(self, remote, progress)

    def view_info(self, filename: str, *, subfolder: str, folder: str) -> ViewedFile:
        return ViewedFile(pieces=iter([]))

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        return []

    def running_graphs(self) -> dict[str, Graph]:
        return {}

    @contextmanager
    def view(self, filename: str, *, subfolder: str, folder: str, start: int = 0) -> Iterator[ViewedFile]:
        self.starts.append(start)
        if self.view_trouble:
            raise self.view_trouble
        own = self.own.output_dir or ""
        seen = {Path(path).name: each for path, each in self.contents.items() if path.startswith(own)}
        content = {**seen, **self.viewed}.get(filename)
        if content is None:
            raise RemoteFileMissing(f"{filename} is not on the instance any more")
        start = max(0, len(content) + start) if start < 0 else start
        tag = f'"{7 * 10**9:x}-{len(content):x}"'
        yield ViewedFile(pieces=iter([content[start:]]), start=start, size_bytes=len(content), tag=tag)


@dataclass
class Opening:
    """A file of an instance that is being opened."""

    instance: Instance
    remote: str
    progress: Callable[[int, int], None]

    def attributes(self) -> RemoteFile:
        if self.remote not in self.instance.contents:
            raise RemoteFileMissing(f"{self.remote} is not there")
        if self.instance.trouble:
            raise self.instance.trouble
        return self._described()

    def fetch(self, part: LocalPart) -> RemoteFile:
        instance = self.instance
        if self.remote not in instance.contents:
            raise RemoteFileMissing(f"{self.remote} is not there")
        content = instance.contents[self.remote]
        start = part.begin(len(content), version_of(len(content), 7))
        part.write(content[start : start + 3])
        self.progress(start + 3, len(content))
        if instance.trouble:
            raise instance.trouble
        part.write(content[start + 3 :])
        instance.reads.append(self.remote)
        return self._described()

    def _described(self) -> RemoteFile:
        size_bytes = len(self.instance.contents[self.remote])
        modified_at = datetime.fromtimestamp(7, UTC)
        return RemoteFile(name="", size_bytes=size_bytes, modified_at=modified_at, is_directory=False)


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


def at(second: float) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_file_comes_from_comfyuis_own_directory_then_the_configured_one_then_the_tunnel(
    output_dir: Path,
) -> None:
    own = Directories(output_dir="/own")
    for place, instance in {
        "/own/s/a.bin": Instance({"/o/s/a.bin": b"first", "/own/s/a.bin": b"second"}, own=own),
        "/o/s/a.bin": Instance({"/o/s/a.bin": b"second"}, {"a.bin": b"second"}, own=own),
    }.items():
        got = fetcher(instance, output_dir / place[1:3]).fetch(OutputFile(filename="a.bin", subfolder="s"))
        assert got.remote_path == place
        assert Path(got.local_path or "").read_bytes() == instance.contents[place]
    got = fetcher(Instance(viewed={"a.bin": b"third"}), output_dir).fetch(OutputFile(filename="a.bin"))
    assert (got.is_downloaded, got.size_bytes) == (True, 5)


@pytest.mark.parametrize("theirs", [b"their picture", b"OUR picture", b"our picture "])
@pytest.mark.parametrize("own", [Directories(), Directories(output_dir="/o"), Directories(output_dir="/own")])
def test_a_file_of_another_comfyui_is_not_taken(output_dir: Path, own: Directories, theirs: bytes) -> None:
    """It has the same name and time, and is where ComfyUI or the user says: in another container."""
    instance = Instance({"/o/a.bin": theirs}, {"a.bin": b"our picture"}, own=own)
    got = fetcher(instance, output_dir).fetch(OutputFile(filename="a.bin"))
    assert got.is_downloaded
    assert files_in(output_dir) == {"a.bin": b"our picture"}


def test_only_the_end_of_a_long_file_is_compared(output_dir: Path) -> None:
    ours, theirs = os.urandom(300_000), os.urandom(300_000)
    numbered = OutputFile(filename="a.bin", node_id="3")
    instance = Instance({"/o/a.bin": theirs}, {"a.bin": ours})
    assert fetcher(instance, output_dir).fetch(numbered).is_downloaded
    assert files_in(output_dir) == {"a.bin": ours}
    assert instance.starts == [-COMPARED_BYTES, 0]
    instance = Instance({"/o/a.bin": ours})
    assert fetcher(instance, output_dir / "2").fetch(numbered).is_downloaded
    assert instance.starts == [-COMPARED_BYTES]


def test_a_short_file_is_complete_with_the_answer_of_comfyui(output_dir: Path) -> None:
    for size_bytes, is_read in ((0, False), (5, False), (COMPARED_BYTES, False), (COMPARED_BYTES + 1, True)):
        content = os.urandom(size_bytes)
        instance = Instance({"/o/a.bin": content})
        place = output_dir / str(size_bytes)
        got = fetcher(instance, place).fetch(OutputFile(filename="a.bin", node_id="3"))
        assert (got.is_downloaded, bool(instance.reads)) == (True, is_read)
        assert files_in(place) == {"a.bin": content}
        assert instance.starts == [-COMPARED_BYTES]


def test_a_file_that_is_overwritten_after_comfyui_told_its_end_is_not_taken(output_dir: Path) -> None:
    """A node that saves under a fixed name: the next prompt writes its own file while ours is read."""
    ours = os.urandom(300_000)
    theirs = os.urandom(200_000) + ours[200_000:]

    output = OutputFile(filename="a.bin", node_id="1", made_after=at(6), made_before=at(7.5))

    class Overwritten(Instance):
        @contextmanager
        def view(self, filename: str, **place: Any) -> Iterator[ViewedFile]:
            modified_ns = 7_900_000_000 if self.starts else 7_000_000_000
            with super().view(filename, **place) as viewed:
                yield replace(viewed, tag=f'"{modified_ns:x}-{len(ours):x}"')
            self.contents["/o/a.bin"] = theirs

        def recent_history(self, limit: int) -> list[HistoryEntry]:
            return [HistoryEntry(prompt_id="later", outcome=Outcome.SUCCESS, outputs=(output,))]

    got = fetcher(Overwritten({"/o/a.bin": ours}), output_dir).fetch(output)
    assert "overwrote a.bin" in (got.error or "")
    assert files_in(output_dir) == {}


@pytest.mark.parametrize("trouble", [ComfyUIUnavailable("a proxy answers"), RemoteFileError("HTTP 403")])
def test_where_comfyui_sends_no_file_the_time_is_the_proof(output_dir: Path, trouble: ComfyUIError) -> None:
    instance = Instance({"/o/a.bin": b"content"}, view_trouble=trouble)
    output = OutputFile(filename="a.bin", made_after=at(6), made_before=at(8))
    assert fetcher(instance, output_dir).fetch(output).is_downloaded
    for made in ((at(70), at(80)), (at(1), at(2)), (None, None)):
        old_or_later = replace(output, made_after=made[0], made_before=made[1])
        try:
            got = fetcher(instance, output_dir / "none").fetch(old_or_later)
        except ComfyUIUnavailable:
            continue  # it is tried again later
        assert (got.is_downloaded, got.error) == (False, "HTTP 403")


def test_what_the_cache_lists_and_is_gone_is_told_apart(output_dir: Path) -> None:
    fetching = fetcher(Instance(), output_dir)
    for output in (OutputFile(filename="made.bin"), OutputFile(filename="cached.bin", is_cached=True)):
        assert "any more" in (fetching.fetch(output).error or "")
    assert [output.filename for output in fetching.gone] == ["cached.bin"]


def test_a_node_runs_again_once_and_only_if_it_is_in_the_graph() -> None:
    graph = {name: {"class_type": "SaveImage", "inputs": {}} for name in ("3", "57:9")}
    run = new_run(graph)
    outputs = [OutputFile(filename="a", node_id=name) for name in ("57:9.0.0.3", "3", "57:9.0.1.3")]
    assert nodes_to_save_again(run, outputs) == ("57:9", "3")
    assert nodes_to_save_again(run, [*outputs, OutputFile(filename="a", node_id="8")]) == ()
    assert nodes_to_save_again(replace(run, saved_again=("3",)), outputs) == ()
    assert nodes_to_save_again(run, []) == ()


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("../a.bin", ""), ("/etc/a.bin", ""), ("..", ""), (".", ""), ("a\\..\\b.bin", ""), ("a\nb.bin", ""),
        ("a\0.bin", ""), ("\\etc\\a.bin", ""), ("a\\", ""), ("a/b.bin", ""),
        ("n" * 300, ""), ("é" * 130, ""), ("a.bin", ".."), ("a.bin", "../x"), ("a.bin", "x/../.."),
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


def test_of_a_file_that_several_nodes_list_all_nodes_are_known() -> None:
    """ComfyUI executes the second of two equal nodes from its cache."""
    listed = [OutputFile(filename="a", node_id=node_id) for node_id in ("1", "2", "2", "3")]
    (found,) = wanted_outputs(tuple(listed), include_previews=False)
    assert sorted((found.node_id, *found.other_node_ids)) == ["1", "2", "3"]


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
