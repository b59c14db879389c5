"""`convert`: a graph on stdout, or nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow import demo
from tests.cli.conftest import Command
from tests.cli.workflow_files import EDITOR_FILE, editor_file, picture_of
from tests.sandbox_process import SandboxProcess

PAIRS = Path(__file__).parents[1] / "workflows" / "pairs"
OFFLINE = ("--object-info", PAIRS / "object_info.json")
STRANGE_CLASS = "Strange\x1b[2JSaver"
STRANGE_NODE = {
    "id": 9,
    "type": STRANGE_CLASS,
    "mode": 0,
    "widgets_values": [1],
    "properties": {"Node name for S&R": STRANGE_CLASS},
}


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    return editor_file(tmp_path / "paper.json")


def inputs_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    return {node_id: node["inputs"] for node_id, node in graph.items()}


def test_offline_nothing_but_the_graph_is_printed(command: Command, workflow: Path, tmp_path: Path) -> None:
    result = command("convert", workflow, *OFFLINE)
    assert (result.exit_code, result.stderr) == (0, "")
    assert inputs_of(json.loads(result.stdout)) == {
        "1": {"width": 64, "height": 48, "batch_size": 1, "color": 0},
        "2": {"image": ["1", 0], "blur_radius": 3, "sigma": 1.0},
        "3": {"images": ["2", 0], "filename_prefix": "paper"},
    }
    assert result.stdout.startswith('{\n  "1": {\n')
    assert not (tmp_path / "data").exists()


def test_an_instance_makes_the_same_graph(
    command: Command, server: str, sandbox: SandboxProcess, workflow: Path
) -> None:
    offline = command("convert", workflow, *OFFLINE)
    asked = command("convert", workflow, "--ssh", sandbox.ssh_string)
    assert asked.exit_code == 0, asked.stderr
    assert inputs_of(json.loads(asked.stdout)) == inputs_of(json.loads(offline.stdout))
    assert sandbox.executions() == []


@pytest.mark.usefixtures("server")
def test_a_graph_that_would_not_run_is_printed_all_the_same(
    command: Command, sandbox: SandboxProcess
) -> None:
    result = command("convert", demo.ENHANCE, "--ssh", sandbox.ssh_string, "--set", "Save.filename_prefix=me")
    graph = json.loads(result.stdout)
    assert (result.exit_code, graph["6"]["inputs"]["filename_prefix"]) == (0, "me")


def test_inputs_are_set(command: Command, workflow: Path, tmp_path: Path) -> None:
    (tmp_path / "name.txt").write_text("from a file\n")
    values = ("--set", "Paper.width=128", "--set", f"3.filename_prefix=@{tmp_path / 'name.txt'}")
    graph = json.loads(command("convert", workflow, *OFFLINE, *values).stdout)
    assert graph["1"]["inputs"]["width"] == 128
    assert graph["3"]["inputs"]["filename_prefix"] == "from a file"


def test_seeds_are_drawn_anew(command: Command) -> None:
    texts = [
        command("convert", demo.TEXT_TO_IMAGE, *OFFLINE, "--seed-mode", mode).stdout
        for mode in ("saved", "randomize")
    ]
    saved, drawn = map(json.loads, texts)
    assert saved == json.loads(demo.TEXT_TO_IMAGE.read_bytes())
    assert drawn != saved


def test_a_picture_gives_the_graph_that_made_it(command: Command, tmp_path: Path) -> None:
    prompt = json.loads(demo.TEXT_TO_IMAGE.read_bytes())
    picture = picture_of(tmp_path / "lake.png", prompt=prompt, workflow=EDITOR_FILE)
    assert json.loads(command("convert", picture, *OFFLINE).stdout) == prompt


def test_a_graph_is_whole_whatever_classes_there_are(command: Command, tmp_path: Path) -> None:
    graph = {"1": {"class_type": "NobodyHasThis", "inputs": {"a": 1}}}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert json.loads(command("convert", tmp_path / "graph.json", *OFFLINE).stdout) == graph


def test_classes_that_are_missing_are_told(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    workflow = editor_file(tmp_path / "strange.json", STRANGE_NODE)
    for source in (OFFLINE, ("--ssh", sandbox.ssh_string)):
        result = command("convert", workflow, *source)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "does not have the node class Strange [2JSaver" in result.stderr


def test_a_node_that_is_left_out_is_told(
    command: Command, server: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    label = {"id": 9, "type": "Label\x1b[2J", "mode": 0}
    workflow = editor_file(tmp_path / "labelled.json", label)
    for source in (OFFLINE, ("--ssh", sandbox.ssh_string)):
        result = command("convert", workflow, *source)
        assert (result.exit_code, "9" in json.loads(result.stdout)) == (0, False)
        assert 'has no node class "Label' in result.stderr
        assert "so it is left out" in result.stderr
        assert "\x1b" not in result.stderr


def test_what_only_a_running_instance_knows_is_told(command: Command) -> None:
    result = command("convert", PAIRS / "t_load_image_kinds_new.ui.json", *OFFLINE)
    assert result.exit_code == 0
    assert "/internal/files/output" in result.stderr
    assert json.loads(result.stdout)


def test_output_is_a_new_file(command: Command, workflow: Path, tmp_path: Path) -> None:
    kept = workflow.read_bytes()
    result = command("convert", workflow, *OFFLINE, "--output", tmp_path / "graph.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert list(json.loads((tmp_path / "graph.json").read_bytes())) == ["1", "2", "3"]
    for taken, sentence in ((workflow, "is not overwritten"), (tmp_path / "no" / "a.json", "No such")):
        refused = command("convert", workflow, *OFFLINE, "--output", taken)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert sentence in refused.stderr
    assert workflow.read_bytes() == kept


def test_exactly_one_source_of_classes(command: Command, workflow: Path) -> None:
    for arguments in ((), (*OFFLINE, "--ssh", "ssh root@gpu")):
        result = command("convert", workflow, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "either --ssh or --object-info" in result.stderr


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"1": {"class_type": "A", "inputs": {}}}']
)
def test_what_is_no_object_info_is_refused(
    command: Command, workflow: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "info.json").write_bytes(content)
    result = command("convert", workflow, "--object-info", tmp_path / "info.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "info.json" in result.stderr


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"nodes": [], "links": []}', "no nodes that run"),
        (b'{"nodes": [1], "links": []}', "not a file of the ComfyUI editor"),
        (b"\x89PNG\r\n\x1a\n", "The picture cannot be read"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused(
    command: Command, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "workflow.json").write_bytes(content)
    for source in (OFFLINE, ("--ssh", "ssh root@gpu")):
        result = command("convert", tmp_path / "workflow.json", *source)
        assert (result.exit_code, result.stdout) == (2, "")
        assert sentence in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "1.widht=3"), "has no input"),
        (("--set", "9.width=3"), "names no node"),
        (("--set", "1.width=\udcff"), "not valid Unicode"),
        (("--seed-mode", "never"), "never"),
        (("--object-info", "/no/such/file"), "does not exist"),
    ],
)
def test_a_wrong_option_is_refused(
    command: Command, workflow: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = command("convert", workflow, *OFFLINE, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_an_instance_that_is_not_there(command: Command, server: str, workflow: Path) -> None:
    result = command("convert", workflow, "--ssh", "ssh -p 1 root@127.0.0.1")
    assert (result.exit_code, result.stdout) == (4, "")
