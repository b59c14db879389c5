"""Tests of the parsers with histories, queues and refusals that were recorded from real ComfyUI servers."""

import json
from pathlib import Path

import pytest

from comfyui_workflow.comfyui.history import Outcome, read_history
from comfyui_workflow.comfyui.messages import MessageReader
from comfyui_workflow.comfyui.queue import read_queue
from comfyui_workflow.comfyui.shown_results import ShownResults, file_type, read_shown
from comfyui_workflow.comfyui.validation_errors import refusal_sentence
from comfyui_workflow.runs.events import NodesAdvanced, NodeStarted, NoticeAdded
from comfyui_workflow.runs.model import FileType

TRACES = Path(__file__).parents[1] / "traces"
RECORDED = json.loads((TRACES / "prompts.json").read_text())
REFUSALS = json.loads((TRACES / "refusals.json").read_text())


def histories(name: str) -> list[dict[str, object]]:
    return [prompt["history"] for prompt in RECORDED[name] if prompt["history"]]


def test_an_interrupt_is_told_from_a_failure() -> None:
    outcomes = [read_history("p", entry).outcome for entry in histories("11_interrupt")]
    assert Outcome.INTERRUPTED in outcomes
    assert Outcome.ERROR not in outcomes


def test_a_cycle_met_at_run_time_is_no_success_though_the_status_says_so() -> None:
    lying = [
        entry
        for entry in histories("42_worker_thread_death")
        if entry["status"]["status_str"] == "success"
        and any(kind == "execution_error" for kind, _ in entry["status"]["messages"])
    ]
    assert lying
    assert {read_history("p", entry).outcome for entry in lying} == {Outcome.ERROR}


def test_failures_carry_message_type_and_node() -> None:
    failures = [read_history("p", entry) for entry in histories("13_execution_error_oom_blocker")]
    errors = [entry for entry in failures if entry.outcome is Outcome.ERROR]
    assert errors
    assert all(entry.error_message and entry.error_type and entry.failed_node_id for entry in errors)


def test_outputs_of_every_kind_and_key_are_found() -> None:
    (entry,) = histories("07_ui_keys_gifs_audio_text")
    kinds = {output.file_type for output in read_history("p", entry).outputs}
    assert {FileType.IMAGE, FileType.AUDIO, FileType.TEXT} <= kinds
    (entry,) = histories("06_multi_output_batch4_temp_subfolder")
    outputs = read_history("p", entry).outputs
    assert {output.folder for output in outputs} >= {"output", "temp"}
    assert any(output.subfolder for output in outputs)


def test_hostile_history_entries_are_read_without_harm() -> None:
    for status in (None, {}, {"messages": 5}, {"messages": [1, ["x"], ["execution_error", 3]]}):
        entry = read_history(
            "p", {"status": status, "outputs": {"1": [1], "2": {"images": [{"filename": 3}, 7]}}}
        )
        assert entry.outputs == ()
    assert read_shown("1", {"images": None, "gifs": [None, {"filename": ""}]}) == ShownResults()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.PNG", FileType.IMAGE),
        ("b.mp4", FileType.VIDEO),
        ("c.flac", FileType.AUDIO),
        ("d.glb", FileType.MODEL_3D),
        ("e.txt", FileType.TEXT),
        ("f.safetensors", FileType.OTHER),
        ("none", FileType.OTHER),
    ],
)
def test_file_types(name: str, kind: FileType) -> None:
    assert file_type(name) is kind


def test_the_pending_queue_is_a_heap_and_is_put_in_order() -> None:
    queue = read_queue(
        {
            "queue_running": [[0, "r", {}, {"comfyui_workflow": "w/1"}, []]],
            "queue_pending": [
                [5, "e", {}, {}, []],
                [2.5, "b", {}, None, []],
                [3, "d", {}],
                [3, "c", {}],
                "junk",
            ],
        }
    )
    assert queue.pending == ("b", "c", "d", "e")
    assert [queue.position(prompt_id) for prompt_id in ("b", "e", "r", "x")] == [1, 4, None, None]
    assert queue.correlations == {"w/1": "r"}
    assert read_queue({}).pending == ()


@pytest.mark.parametrize("recorded", REFUSALS, ids=range(len(REFUSALS)))
def test_recorded_refusals_name_the_node_and_the_input(recorded: dict[str, object]) -> None:
    graph = recorded["graph"] if isinstance(recorded["graph"], dict) else {}
    sentence = refusal_sentence(recorded["answer"], graph, {})
    for node_id, node in recorded["answer"]["node_errors"].items():
        assert f"node {node_id} ({node['class_type']})" in sentence
        for error in node["errors"]:
            assert str((error["extra_info"] or {}).get("input_name", "")) in sentence
    assert len(sentence) > len("ComfyUI refuses the workflow: ")


def test_a_long_list_of_choices_offers_the_nearest() -> None:
    models = [f"model-{n:02}.safetensors" for n in range(40)]
    error = {"type": "value_not_in_list", "extra_info": {"input_name": "m", "input_config": None,
             "received_value": "model-7.safetensors"}}  # fmt: skip
    answer = {"node_errors": {"1": {"class_type": "L", "errors": [error]}}}
    definitions = {"L": {"input": {"required": {"m": [models, {}]}}}}
    sentence = refusal_sentence(answer, {"1": {"class_type": "L"}}, definitions)
    assert "nearest of its 40: model-" in sentence
    assert "07" in sentence or "17" in sentence


def test_expanded_nodes_count_into_the_node_they_came_from() -> None:
    nodes = {
        "9": {"node_id": "9", "display_node_id": "9", "value": 0, "max": 1, "state": "running"},
        "9.0.0.1": {"node_id": "9.0.0.1", "display_node_id": "9", "value": 1, "max": 1, "state": "finished"},
    }
    (event,) = MessageReader().events({"type": "progress_state", "data": {"prompt_id": "p", "nodes": nodes}})
    assert isinstance(event, NodesAdvanced)
    assert set(event.steps) == {"9"}
    assert not event.steps["9"].is_finished


def test_an_old_comfyui_ends_a_node_by_beginning_the_next() -> None:
    (event,) = MessageReader().events({"type": "executing", "data": {"prompt_id": "p", "node": "4"}})
    assert event == NodeStarted(node_id="4", ends_others=True)


def test_a_blocked_execution_is_a_notice_not_an_end() -> None:
    data = {"prompt_id": "p", "exception_type": "ExecutionBlocked", "exception_message": "why"}
    assert list(MessageReader().events({"type": "execution_error", "data": data})) == [
        NoticeAdded(message="Blocked, not failed: why")
    ]


def test_unknown_and_broken_messages_say_nothing() -> None:
    reader = MessageReader()
    for kind, data in (("crystools.monitor", {}), ("executing", {"node": 5}), ("progress", {"node": None})):
        assert list(reader.events({"type": kind, "data": {"prompt_id": "p", **data}})) == []
    odd = {"nodes": {"1": 7, "2": {"node_id": "2", "value": float("nan"), "max": float("inf")}}}
    (event,) = reader.events({"type": "progress_state", "data": odd})
    assert isinstance(event, NodesAdvanced)
    assert event.steps["2"].value == 0
