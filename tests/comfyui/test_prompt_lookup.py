"""Tests of the lookup of a prompt at a ComfyUI that chose its id and sends its history in pieces."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from comfyui_workflow.comfyui import prompt_lookup
from comfyui_workflow.comfyui.history import HistoryEntry, read_history
from comfyui_workflow.comfyui.prompt_lookup import derived_prompt_id, find_prompt
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, QueueSnapshot, read_queue
from comfyui_workflow.comfyui.system import System
from comfyui_workflow.errors import ComfyUIUnavailable


class OldComfyUI:
    """Sends its history in pieces of a given size in bytes."""

    def __init__(self, entries: dict[str, Any], piece_bytes: int, version: str | None = "0.3.41") -> None:
        self._entries = entries
        self._piece_bytes = piece_bytes
        self._version = version

    def queue(self) -> QueueSnapshot:
        return read_queue({})

    def history(self, prompt_id: str) -> HistoryEntry | None:
        entry = self._entries.get(prompt_id)
        return None if entry is None else read_history(prompt_id, entry)

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        newest = list(self._entries.items())[-limit:]
        return [read_history(prompt_id, entry) for prompt_id, entry in newest]

    def system(self) -> System:
        return System(comfyui_version=self._version, devices=())

    @contextmanager
    def whole_history(self) -> Iterator[Iterator[bytes]]:
        said = json.dumps(self._entries).encode()
        yield (said[at : at + self._piece_bytes] for at in range(0, len(said), self._piece_bytes))


def entries(count: int, ours: int | None) -> dict[str, Any]:
    """History entries; one has our mark, and a graph with an input that looks like an entry."""
    made = {}
    for number in range(count):
        extra = {CORRELATION_KEY: "run/1"} if number == ours else {}
        graph = {
            "1": {"class_type": "X", "inputs": {"text": '"prompt": [1, "not-an-id"', "prompt": ["4", 0]}}
        }
        made[f"id-{number}"] = {"prompt": [number, f"id-{number}", graph, extra, ["1"]], "outputs": {}}
    return made


@pytest.mark.parametrize("piece_bytes", [7, 100, 4096, 10_000_000])
@pytest.mark.parametrize("ours", [0, 5, 99, 299])
def test_it_is_found_wherever_it_is(ours: int, piece_bytes: int) -> None:
    client: Any = OldComfyUI(entries(300, ours), piece_bytes)
    found = find_prompt(client, "not this", "run/1")
    assert found is not None
    assert found.prompt_id == f"id-{ours}"
    assert found.mark is not None


@pytest.mark.parametrize("version", ["0.3.41", None, "", "nightly", "0.3.44"])
def test_absent_is_said_only_after_all_of_it(version: str | None) -> None:
    client: Any = OldComfyUI(entries(300, None), 1000, version)
    assert find_prompt(client, "not this", "run/1") is None


def test_a_history_that_is_too_long_is_not_taken_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_lookup, "MOST_HISTORY_BYTES", 20_000)
    client: Any = OldComfyUI(entries(300, None), 1000)
    with pytest.raises(ComfyUIUnavailable, match="too long to search"):
        find_prompt(client, "not this", "run/1")


def test_a_version_that_takes_our_ids_is_not_asked_for_its_history() -> None:
    client: Any = OldComfyUI(entries(300, 5), 1000, "0.3.64")
    assert find_prompt(client, "not this", "run/1") is None


def test_the_id_of_a_submission_follows_from_it_and_is_a_uuid_as_comfyui_wants_it() -> None:
    server = UUID("9f3f0f5e-3a52-4f3e-9a43-0d3f2a0c9b11")
    made = derived_prompt_id(server, "run/1")
    assert made == derived_prompt_id(server, "run/1")
    assert made != derived_prompt_id(server, "run/2")
    assert made == str(UUID(made))
