"""Uploads to a ComfyUI and downloads: complete files, safe names, nothing overwritten."""

from pathlib import Path

import pytest

from comfyui_workflow.client import ComfyUI, HistoryEntry, InvalidRequest
from comfyui_workflow.errors import RemoteFileError, RemoteFileMissing, StoreError
from comfyui_workflow.runs.model import FileType, OutputFile
from tests.integration.graphs import node
from tests.sandbox.graphs import quick_graph
from tests.sandbox.running_comfyui import RunningComfyUI


@pytest.fixture
def entry(comfyui: ComfyUI) -> HistoryEntry:
    return comfyui.run(quick_graph(prefix="sub/quick"), timeout_s=20)


def test_outputs_come_below_the_directory(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, entry: HistoryEntry, tmp_path: Path
) -> None:
    (path,) = comfyui.download(entry, tmp_path / "here")
    assert path == tmp_path / "here" / "sub" / "quick_00001_.png"
    remote = sandbox_comfyui.folders.output_dir / "sub" / "quick_00001_.png"
    assert path.read_bytes() == remote.read_bytes()
    assert [each.key for each in comfyui.output_files(entry.prompt_id)] == [entry.outputs[0].key]


def test_the_same_file_twice_is_one_and_another_stays(
    comfyui: ComfyUI, entry: HistoryEntry, tmp_path: Path
) -> None:
    (first,) = comfyui.download(entry, tmp_path)
    assert comfyui.download(entry, tmp_path) == [first]
    first.write_text("mine")
    (beside,) = comfyui.download(entry, tmp_path)
    assert (first.read_text(), beside.name) == ("mine", "quick_00001_ (1).png")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "hostile",
    [
        {"filename": "../../evil.png"},
        {"filename": "/tmp/evil.png"},
        {"filename": ".."},
        {"filename": "a\\..\\b.png"},
        {"filename": "a\u0000.png"},
        {"filename": "x" * 300 + ".png"},
        {"subfolder": "../.."},
        {"subfolder": "/etc"},
        {"subfolder": "a/../../b"},
        {"filename": ".comfyui_workflow_a.part"},
    ],
)
def test_a_name_that_leads_elsewhere(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, tmp_path: Path, hostile: dict[str, str]
) -> None:
    sandbox_comfyui.faults(rename_outputs={"quick_00001_.png": hostile})
    entry = comfyui.run(quick_graph(), timeout_s=20)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(RemoteFileError, match="not safe to write here"):
        comfyui.download(entry, tmp_path / "here")
    assert set(tmp_path.rglob("*")) - before == set()


def test_half_a_file_is_none(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, entry: HistoryEntry, tmp_path: Path
) -> None:
    remote = sandbox_comfyui.folders.output_dir / "sub" / "quick_00001_.png"
    remote.write_bytes(remote.read_bytes()[:60])
    with pytest.raises(RemoteFileError, match="cut short"):
        comfyui.download(entry, tmp_path / "here")
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []


def test_a_transfer_that_breaks_is_done_again(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, entry: HistoryEntry, tmp_path: Path
) -> None:
    sandbox_comfyui.faults(answers=[{"path": "/view", "mode": "drop", "times": 2}])
    assert comfyui.download(entry, tmp_path / "here")[0].is_file()


def test_one_that_is_gone(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, entry: HistoryEntry, tmp_path: Path
) -> None:
    (sandbox_comfyui.folders.output_dir / "sub" / "quick_00001_.png").unlink()
    with pytest.raises(RemoteFileMissing):
        comfyui.download(entry, tmp_path / "here")


def test_where_nothing_can_be_written(comfyui: ComfyUI, entry: HistoryEntry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        comfyui.download(entry, tmp_path / "file")


def test_texts_and_previews(comfyui: ComfyUI, tmp_path: Path) -> None:
    graph = quick_graph()
    graph["3"] = node("LabOutputs", images=["1", 0], filename_prefix="x", text="a lake", seed=1)
    graph["4"] = node("PreviewImage", images=["1", 0])
    entry = comfyui.run(graph, timeout_s=20)
    kinds = {each.file_type for each in comfyui.output_files(entry.prompt_id)}
    assert kinds == {FileType.IMAGE, FileType.TEXT}
    names = [path.name for path in comfyui.download(entry, tmp_path / "here")]
    assert sorted(names) == ["quick_00001_.png", "text_3.txt"]
    assert (tmp_path / "here" / "text_3.txt").read_text() == "a lake"
    previews = comfyui.output_files(entry.prompt_id, previews=True)
    assert len(previews) == 3
    assert len(comfyui.download(previews, tmp_path / "all")) == 3


def test_uploads(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(b"one")
    assert comfyui.upload(file) == "photo.png" == comfyui.upload(file)
    assert comfyui.upload(file, subfolder="mine") == "mine/photo.png"
    file.write_bytes(b"two")
    assert comfyui.upload(file) == "photo (1).png"
    assert comfyui.upload(str(file), replace=True) == "photo.png"
    assert (sandbox_comfyui.folders.input_dir / "photo.png").read_bytes() == b"two"
    assert (sandbox_comfyui.folders.input_dir / "mine" / "photo.png").read_bytes() == b"one"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        comfyui.upload(tmp_path / "nothing.png")


def test_files_of_a_prompt_that_is_not_over(comfyui: ComfyUI) -> None:
    assert comfyui.output_files("0b53bd24-0000-4000-8000-000000000000") == ()
    assert comfyui.download([], Path("/nowhere")) == []
    with pytest.raises(RemoteFileMissing):
        comfyui.download([OutputFile(filename="nothing.png")], Path())
