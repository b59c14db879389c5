"""Replay of a recorded scenario against the sandbox, with the same order of requests and messages.

A recording has one JSON line for each event: a websocket was opened (`ws_open`), a frame was received (`ws`,
`ws_bin`) or sent (`ws_out`), or a request was answered (`http`). `at` is the time in ms at which it was sent
or received.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.sandbox.running_comfyui import LIMIT_S, Listener, RunningComfyUI, wait_until

_TRACES = Path(__file__).parent / "traces"

_TIMES = ("timestamp", "create_time", "execution_start_time", "execution_end_time")
_IN_ANY_ORDER = (
    "errors",
    "dependent_outputs",
    "input_mapping",
    "current_inputs",
    "executed",
    "current_outputs",
)

Event = dict[str, Any]


def recording(name: str) -> list[Event]:
    """Returns the events of a recording: "VERSION/NAME"."""
    lines = (_TRACES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda event: float(event["at"]))


@dataclass
class Heard:
    """Messages that one socket received, in the recording and in the replay, in a comparable form."""

    recorded: list[Any] = field(default_factory=list)
    replayed: list[Any] = field(default_factory=list)


@dataclass
class Answered:
    """Response to one request, in the recording and in the replay, in a comparable form."""

    request: str
    recorded: Any
    replayed: Any


class Replay:
    """Replays all events with `run`; then a test compares the results of `heard` and `answered`."""

    def __init__(self, comfyui: RunningComfyUI, name: str, events: list[Event] | None = None) -> None:
        """Imitates the version in the name of the recording. `events` replaces its events."""
        self._comfyui = comfyui
        self._version = name.partition("/")[0]
        self._events = recording(name) if events is None else events
        self._sockets: dict[str, Listener] = {}
        self._frames_due: dict[str, int] = {}
        self._ours: dict[str, str] = {}  # recorded prompt id -> the sandbox's
        self._number_offset: float | None = None
        self._answers: list[tuple[Event, requests.Response]] = []

    def run(self) -> "Replay":
        """Replays all events. Between two requests, LabSleep nodes make as many steps as in the recording."""
        self._comfyui.faults(version=self._version)
        steps, seen = 0, _StepsSeen()
        self._comfyui.pace.allow(steps)
        for event in self._events:
            steps += seen.in_event(event)
            if event["ev"] in ("http", "ws_close_frame"):
                self._comfyui.pace.allow(steps)
            match event["ev"]:
                case "ws_open":
                    query = event["url"].partition("/ws")[2]
                    self._sockets[event["ws"]] = Listener(self._comfyui, query)
                    self._frames_due[event["ws"]] = 0
                case "ws" | "ws_bin":
                    self._frames_due[event["ws"]] += 1
                case "ws_out":
                    self._sockets[event["ws"]].send(event["msg"])
                case "ws_close_frame":
                    self._catch_up()
                    self._sockets[event["ws"]].socket.close()
                case "http":
                    self._catch_up()
                    self._request(event)
        self._comfyui.pace.allow(math.inf)
        self._catch_up()
        return self

    def heard(self, socket: str) -> Heard:
        recorded = [event for event in self._events if event.get("ws") == socket]
        return Heard(
            recorded=[
                self._comparable(comparable_frame(event), {})
                for event in recorded
                if event["ev"] in ("ws", "ws_bin")
            ],
            replayed=[
                self._comparable(comparable_own_frame(frame), self._theirs())
                for frame in self._sockets[socket].frames
            ],
        )

    def answered(self) -> list[Answered]:
        return [
            Answered(
                request=f"{event['method']} {event['path']} {json.dumps(event.get('req'))[:300]}",
                recorded=self._comparable(
                    (event["status"], event.get("resp"), event.get("ctype")), {}, self._number_offset or 0
                ),
                replayed=self._comparable(
                    (response.status_code, _json(response), response.headers.get("Content-Type")),
                    self._theirs(),
                ),
            )
            for event, response in self._answers
        ]

    def _catch_up(self) -> None:
        """Waits until the sandbox has sent as many frames as were recorded before the next request."""
        for name, count in self._frames_due.items():
            self._sockets[name].wait_for_frames(count)
        if not self._sockets:  # such a recording waited for each of its prompts
            wait_until(lambda: self._comfyui.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)

    def _request(self, event: Event) -> None:
        text = json.dumps([event["path"], event.get("req")])
        for recorded_id, own_id in sorted(self._ours.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(recorded_id, own_id)
        path, body = json.loads(text)
        response = self._send(event, path, body)
        if event["method"] == "POST" and event["path"] == "/prompt" and event["status"] == 200:
            self._ours[event["resp"]["prompt_id"]] = response.json()["prompt_id"]
            if self._number_offset is None:
                self._number_offset = event["resp"]["number"] - response.json()["number"]
        self._answers.append((event, response))

    def _send(self, event: Event, path: str, body: Any) -> requests.Response:
        is_text = isinstance(body, str)
        data = b"" if body == "b''" else body.encode() if is_text else json.dumps(body).encode()
        return requests.request(
            event["method"],
            self._comfyui.url(path),
            data=None if body is None else data,
            headers=event.get("req_headers"),
            timeout=LIMIT_S,
        )

    def _theirs(self) -> dict[str, str]:
        return {own: recorded for recorded, own in self._ours.items()}

    def _comparable(self, value: Any, ids: dict[str, str], number_offset: float = 0) -> Any:
        """Returns the value without parts that differ between runs: ids, times, counters in names, traces,
        arrays."""
        match value:
            case dict():
                return {
                    ids.get(key, key): _ignored(
                        key, self._comparable(item, ids, number_offset), number_offset
                    )
                    for key, item in value.items()
                    if key not in ("_meta", "tooltip", "essentials_category", "output_tooltips")
                }
            case [
                int() | float() as number,
                str() as prompt_id,
                dict() as graph,
                dict() as extra,
                list() as out,
            ]:
                rest = [self._comparable(item, ids) for item in (prompt_id, graph, extra)]
                return [number - number_offset, *rest, sorted(out)]
            case list() | tuple():
                return [self._comparable(item, ids, number_offset) for item in value]
            case str():
                return _without_counters(ids.get(value, value))
            case _:
                return value


class _StepsSeen:
    """Counts the steps of LabSleep nodes between one recorded event and the next.

    A step is visible as `progress`; an interrupted step as the interrupt; a node with 0 steps by the start of
    the next node.
    """

    def __init__(self) -> None:
        self._sleeps_without_steps = False  # node "1" of the prompt sent last

    def in_event(self, event: Event) -> int:
        if event["ev"] == "http" and event["path"] == "/prompt" and isinstance(event["req"], dict):
            self._sleeps_without_steps = _sleeps_without_steps(event["req"].get("prompt"))
        data = event.get("msg", {}).get("data", {})
        match event.get("msg", {}).get("type"):
            case "progress":
                return 1
            case "execution_interrupted":
                return int(data["node_type"] == "LabSleep")
            case "executing":
                return int(data["node"] == "2" and self._sleeps_without_steps)
            case _:
                return 0


def _sleeps_without_steps(graph: Any) -> bool:
    match graph:
        case {"1": {"class_type": "LabSleep", "inputs": {"steps": 0}}}:
            return True
        case _:
            return False


def comparable_frame(event: Event) -> Any:
    """Returns a recorded frame in full form. Most recordings have abbreviated nodes in `progress_state`."""
    if event["ev"] == "ws_bin":
        return {"binary": event["event"], "meta": event.get("meta"), "picture": event["image_magic"]}
    message = event["msg"]
    if message["type"] != "progress_state":
        return message
    prompt_id = message["data"]["prompt_id"]
    nodes = {
        node_id: node if isinstance(node, dict) else _long_node(node_id, prompt_id, *node)
        for node_id, node in message["data"]["nodes"].items()
    }
    return {**message, "data": {"prompt_id": prompt_id, "nodes": nodes}}


def comparable_own_frame(frame: dict[str, Any] | bytes) -> Any:
    if isinstance(frame, dict):
        return frame
    event = int.from_bytes(frame[:4], "big")
    length = int.from_bytes(frame[4:8], "big")
    if event == 1:
        return {"binary": 1, "meta": None, "picture": frame[8:12].hex()}
    return {
        "binary": event,
        "meta": json.loads(frame[8 : 8 + length]),
        "picture": frame[8 + length :][:4].hex(),
    }


def _long_node(node_id: str, prompt_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
    return {
        "value": value,
        "max": maximum,
        "state": state,
        "node_id": node_id,
        "prompt_id": prompt_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
    }


def _ignored(key: str, value: Any, number_offset: float) -> Any:
    if key in _TIMES:
        return "a time"
    if key in ("number", "priority"):
        return value - number_offset
    if key in _IN_ANY_ORDER:
        return sorted(value, key=json.dumps) if value else value
    if key == "exception_message":
        return _without_function_name(value)
    return bool(value) if key == "traceback" else value


def _without_function_name(message: str) -> str:
    """Makes messages of Python about wrong arguments comparable: a node's function has another name here."""
    return re.sub(r"(\w+)\.(execute|run)\(\)", r"\1()", message).replace("positional", "keyword-only")


def _without_counters(text: str) -> str:
    text = re.sub(r"ComfyUI_temp_[a-z]{5}_", "ComfyUI_temp_", text)
    return re.sub(r"_\d{5}_\.", "_N_.", text)


def _json(response: requests.Response) -> Any:
    return response.json() if "json" in response.headers.get("Content-Type", "") else None
