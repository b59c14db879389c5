"""Tests of preview frames: recorded from real ComfyUI servers, and malformed ones."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.previews import (
    Preview,
    PreviewReader,
    PreviewSource,
)
from tests.fuzz.effort import effort
from tests.fuzz.values import objects, wire

RECORDED = json.loads((Path(__file__).parents[1] / "traces" / "previews.json").read_text())
JPEG, PNG, WEBP = b"\xff\xd8\xff\xe0 1", b"\x89PNG\r\n\x1a\n 2", b"RIFF\x01\x02\x03\x04WEBP 3"
STARTED = {"type": "executing", "data": {"node": "7", "prompt_id": "ours"}}


def with_metadata(about: object, picture: bytes = JPEG) -> bytes:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return struct.pack(">II", 4, len(text)) + text + picture


def without_ids(picture: bytes = JPEG) -> bytes:
    return struct.pack(">II", 1, 1) + picture


def frame_of(recorded: dict[str, Any]) -> bytes:
    """Rebuilds a recorded frame: only its beginning, its length and its metadata were kept."""
    head, magic = bytes.fromhex(recorded["head"])[:8], bytes.fromhex(recorded["magic"])
    meta = b"" if recorded["meta"] is None else json.dumps(recorded["meta"]).encode()
    if meta:
        assert len(meta) == struct.unpack(">I", head[4:])[0]
    rest = bytes.fromhex("0d0a1a0a") if magic == b"\x89PNG" else b""
    return (head + meta + magic + rest).ljust(recorded["length"], b"\0")


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_preview_belongs_to_the_node_that_was_at_work(name: str) -> None:
    reader, at_work, count = PreviewReader(), None, 0
    for each in RECORDED[name]:
        if "text" in each:
            reader.observe(each["text"])
            data = each["text"]["data"]
            if each["text"]["type"] == "executing" and data["node"] is not None:
                at_work = PreviewSource(prompt_id=data["prompt_id"], node_id=data["node"])
            continue
        preview = reader.read(frame_of(each))
        assert preview is not None
        assert preview.place == at_work
        assert preview.content_type == {"ff": "image/jpeg", "89": "image/png"}[each["magic"][:2]]
        assert len(preview.picture) == each["length"] - 8 - len(
            json.dumps(each["meta"]) if each["meta"] else ""
        )
        count += 1
    assert count >= 4


def test_a_picture_is_what_it_is_whatever_is_said_of_it() -> None:
    about = {"prompt_id": "p", "node_id": "7", "image_type": "text/html"}
    found = [PreviewReader().read(with_metadata(about, picture)) for picture in (JPEG, PNG, WEBP)]
    assert [each and each.content_type for each in found] == ["image/jpeg", "image/png", "image/webp"]
    for other in (b"<script>", b"<svg>", b"GIF89a", b"RIFF....WAVE", b"", b"\xff\xd8"):
        assert PreviewReader().read(with_metadata(about, other)) is None


def test_what_a_node_expanded_into_shows_at_the_node() -> None:
    about = {"prompt_id": "p", "node_id": "57:9.0.0.1", "display_node_id": "57:9"}
    found = PreviewReader().read(with_metadata(about))
    assert found is not None
    assert found.place == PreviewSource(prompt_id="p", node_id="57:9")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "executing", "data": {"node": None, "prompt_id": "ours"}},
        {"type": "execution_start", "data": {"prompt_id": "next"}},
        {"type": "executing", "data": {"node": "7"}},  # after a reconnect without the prompt id
        {"type": "progress", "data": None},
    ],
)
def test_without_a_node_at_work_nobody_knows_whose_preview_it_is(message: dict[str, Any]) -> None:
    reader = PreviewReader()
    reader.observe(STARTED)
    assert reader.read(without_ids()) is not None
    reader.observe(message)
    assert reader.read(without_ids()) is None


def test_a_preview_comes_to_the_run_of_its_prompt_alone() -> None:
    feed = EventFeed("http://127.0.0.1:1", "client")
    ours: list[Preview] = []
    others: list[Preview] = []
    with feed.subscribe("ours", ours.append), feed.subscribe("other", others.append), feed.subscribe("third"):
        feed._dispatch(json.dumps(STARTED))
        for frame in (without_ids(PNG), with_metadata({"prompt_id": "other", "node_id": "1"})):
            feed._show(frame)
        for prompt_id in ("third", "foreign"):
            feed._show(with_metadata({"prompt_id": prompt_id, "node_id": "1"}))
    feed._show(without_ids())
    assert [each.picture for each in ours] == [PNG]
    assert [each.picture for each in others] == [JPEG]


@effort(200)
@given(
    st.binary(max_size=40)
    | st.binary(max_size=40).map(lambda content: b"\0\0\0\4\0\0\0\x10" + content)
    | (objects | objects.map(lambda about: {**about, "prompt_id": "p", "node_id": "1"})).map(
        lambda about: with_metadata(wire(about).encode("utf-8", "surrogatepass"))
    )
)
def test_whatever_comes_is_a_picture_or_nothing(frame: bytes) -> None:
    reader = PreviewReader()
    reader.observe(STARTED)
    found = reader.read(frame)
    assert found is None or found.content_type.startswith("image/")
    assert reader.read(with_metadata(b"[" * 100_000)) is None
