"""Whatever a ComfyUI answers, JSON or not, HTTP or not: it is read, or it is one of our own errors."""

import copy
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.failures import failure_sentence
from comfyui_workflow.comfyui.history import wanted_outputs
from comfyui_workflow.comfyui.validation_errors import dropped_outputs, node_findings
from comfyui_workflow.errors import ComfyUIError, InstanceError, WorkflowError
from comfyui_workflow.runs.codec import encode_run
from comfyui_workflow.runs.events import NoticeAdded, PromptSucceeded, RunFailed
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.workflows.graph import output_ids
from comfyui_workflow.workflows.node_definitions import Definitions
from tests.fuzz.effort import effort
from tests.fuzz.peer import Peer
from tests.fuzz.values import Json, mutations, nested, values, wire
from tests.runs.test_state_machine import AT, new_run

PROMPT_ID = "0b53bd24-0000-4000-8000-000000000000"
GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
EXTRA = {"comfyui_workflow": "comfyui_workflow_1_ab/1"}
ITEM = [3, PROMPT_ID, GRAPH, EXTRA, ["2"]]
IMAGE = {"filename": "a_00001_.png", "subfolder": "sub", "type": "output"}
STATUS = {
    "status_str": "error",
    "completed": False,
    "messages": [
        ["execution_start", {"prompt_id": PROMPT_ID}],
        ["execution_error", {"node_id": "2", "exception_message": "no", "exception_type": "ValueError"}],
    ],
}
SUCCESS = {"status_str": "success", "completed": True, "messages": []}
OUTPUTS = {"2": {"images": [IMAGE], "animated": [False]}, "7:1": {"text": ["one", "two"], "gifs": [IMAGE]}}
DEFINITIONS = {
    "LoadImage": {"input": {"required": {"image": [["a.png", "b.png"], {}]}}, "output_node": False},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}, "optional": {}}, "output_node": True},
}
KINDS = [
    "value_not_in_list",
    "required_input_missing",
    "invalid_input_type",
    "value_smaller_than_min",
    "value_bigger_than_max",
    "return_type_mismatch",
    "custom_validation_failed",
]
REFUSAL = {
    "error": {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed",
        "details": "",
        "extra_info": {},
    },
    "node_errors": {
        "1": {
            "errors": [
                {
                    "type": kind,
                    "message": "Value not in list",
                    "details": "image: 'x' not in []",
                    "extra_info": {
                        "input_name": "image",
                        "input_config": ["INT", {"min": 0, "max": 3}],
                        "received_value": "x",
                    },
                }
                for kind in KINDS
            ],
            "dependent_outputs": ["2"],
            "class_type": "LoadImage",
        }
    },
}
ANSWERS: dict[str, Json] = {
    "GET /prompt": {"exec_info": {"queue_remaining": 2}},
    "GET /queue": {
        "queue_running": [ITEM],
        "queue_pending": [[4, "x", GRAPH, EXTRA, []], [2.5, "y", {}, {}, []]],
    },
    "GET /history": {
        PROMPT_ID: {"prompt": ITEM, "outputs": OUTPUTS, "status": SUCCESS, "meta": {}},
        "other": {"prompt": ITEM, "outputs": OUTPUTS, "status": STATUS},
    },
    "GET /object_info": DEFINITIONS,
    "GET /internal/folder_paths": {
        "custom_nodes": ["/w/custom_nodes"],
        **{
            kind: [f"/w/models/{kind}", f"/w/output/{kind}"]
            for kind in ("checkpoints", "loras", "vae", "diffusion_models")
        },
    },
    "GET /system_stats": {
        "system": {"argv": ["main.py", "--input-directory", "/in", "--output-directory=/out"]}
    },
    "POST /prompt": {"prompt_id": PROMPT_ID, "number": 4, "node_errors": REFUSAL["node_errors"]},
    "POST /upload/image": {"name": "a (1).png", "subfolder": "", "type": "input"},
}
RUN = new_run()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def http(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def read_queue(client: ComfyUIClient) -> None:
    snapshot = client.queue()
    assert all(snapshot.position(prompt_id) is not None for prompt_id in snapshot.pending)
    assert all(prompt_id in snapshot for prompt_id in snapshot.running)


def read_recent_history(client: ComfyUIClient) -> None:
    for entry in client.recent_history(10):
        saved(PromptSucceeded(outputs=wanted_outputs(entry.outputs, include_previews=True)))
        sentence = failure_sentence(entry, "X")
        saved(RunFailed(code="x", message=sentence, node_id=entry.failed_node_id))


def saved(event: Any) -> None:
    encode_run(apply(RUN, event, AT))


def submit(client: ComfyUIClient) -> None:
    definitions = client.definitions()
    planned_nodes(GRAPH, output_ids(GRAPH, Definitions(definitions)))
    answer = client.submit(
        GRAPH, prompt_id=PROMPT_ID, client_id="c", extra_data=EXTRA, definitions=lambda: definitions
    )
    findings = "; ".join(node_findings(answer.node_errors, GRAPH, definitions))
    saved(NoticeAdded(message=findings))
    dropped_outputs(answer.node_errors)


def upload(client: ComfyUIClient) -> None:
    assert client.upload(BytesIO(b"x"), "a.png").encode()


def view(client: ComfyUIClient) -> None:
    with client.view("a.png", subfolder="", folder="output") as pieces:
        assert sum(map(len, pieces)) >= 0


QUESTIONS: list[Callable[[ComfyUIClient], object]] = [
    ComfyUIClient.probe,
    ComfyUIClient.directories,
    read_queue,
    read_recent_history,
    submit,
    upload,
    view,
    lambda client: client.history(PROMPT_ID),
    lambda client: client.has_file("a", folder="input"),
]


def ask_everything(peer: Peer) -> None:
    client = ComfyUIClient(peer.url, read_timeout_s=5)
    for question in QUESTIONS:
        try:
            question(client)
        except WorkflowError as error:
            assert isinstance(error, ComfyUIError | InstanceError), error
            saved(RunFailed(code=error.code, message=str(error)))
    client.close()


@st.composite
def changed_answers(draw: st.DrawFn) -> dict[str, Json]:
    """Some answers with something changed, or something else altogether."""
    answers = dict(ANSWERS)
    for path in draw(st.sets(st.sampled_from(list(ANSWERS)), min_size=1, max_size=3)):
        answers[path] = draw(st.one_of(mutations(copy.deepcopy(ANSWERS[path])), values))
    return answers


@effort(60)
@given(answers=changed_answers(), refusal=st.one_of(mutations(REFUSAL), values), is_refused=st.booleans())
@example(answers=ANSWERS, refusal=REFUSAL, is_refused=True)
@example(answers=ANSWERS, refusal=REFUSAL, is_refused=False)
def test_any_json_is_read_or_is_one_of_our_errors(
    peer: Peer, answers: dict[str, Json], refusal: Json, is_refused: bool
) -> None:
    peer.answers = {path: http(wire(answer).encode()) for path, answer in answers.items()}
    peer.answers[f"GET /history/{PROMPT_ID}"] = peer.answers["GET /history"]
    if is_refused:
        peer.answers["POST /prompt"] = http(wire(refusal).encode(), 400)
    ask_everything(peer)


HEADERS = [
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: x",
    "Content-Length: 1, 2",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: deflate",
    "Content-Type: text/html; charset=\0",
    "Content-Type: ;charset=utf-7",
    "Location: http://[",
    "Location: \xff\xfe",
    "Location: //",
    "Location: ftp://x/y",
    "Set-Cookie: a=b; expires=9",
    "Connection: close",
    ": empty",
    "\0: \0",
    "Retry-After: 5",
]
BODIES = [
    b"",
    b"{}",
    b"5\r\n{}   \r\n0\r\n\r\n",
    b"\x1f\x8b\x08\x00",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b"1" * 5000,
    b"<html>",
]


@st.composite
def raw_answers(draw: st.DrawFn) -> bytes:
    status = draw(
        st.sampled_from([b"200 OK", b"400 no", b"302 x", b"500 x", b"204", b"100 x", b"99999 y", b"", b"200"])
        | st.binary(max_size=8)
    )
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"SSH-2.0"]) | st.binary(max_size=8))
    headers = [line.encode("latin-1") for line in draw(st.lists(st.sampled_from(HEADERS), max_size=4))]
    body = draw(st.sampled_from(BODIES) | st.binary(max_size=30))
    return b"\r\n".join([version + b" " + status, *headers, b"", body])


@effort(100)
@given(answer=st.one_of(raw_answers(), st.binary(max_size=60)))
@example(answer=http(b"{}", 302, "Location: \xff\r\n"))
def test_any_bytes_are_read_or_are_one_of_our_errors(peer: Peer, answer: bytes) -> None:
    peer.answers = dict.fromkeys([*ANSWERS, f"GET /history/{PROMPT_ID}", "HEAD /view", "GET /view"], answer)
    ask_everything(peer)


def test_an_answer_that_is_nested_without_end_is_one_of_our_errors(peer: Peer) -> None:
    peer.answers = dict.fromkeys(ANSWERS, http(wire(nested(900)).encode()))
    ask_everything(peer)
    peer.answers = dict.fromkeys(ANSWERS, http(b'{"a":' * 100_000))
    ask_everything(peer)
