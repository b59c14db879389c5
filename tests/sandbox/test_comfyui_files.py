"""Responses to uploads and downloads, compared with those of a recorded ComfyUI 0.3.64."""

import json
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.graphs import quick_graph
from tests.sandbox.replay import Event, Replay, recording
from tests.sandbox.running_comfyui import RunningComfyUI
from tests.sandbox.test_comfyui_answers import assert_same


def test_uploads_answer_as_recorded(comfyui: RunningComfyUI) -> None:
    for event in recording("0.3.64/28_upload_image"):
        response = comfyui.post("/upload/image", **_upload(event["req"]))
        answer = response.json() if response.status_code == 200 else None
        assert (response.status_code, answer) == (event["status"], event.get("resp")), event["req"]


def test_a_same_name_is_another_file_unless_the_bytes_are_the_same(comfyui: RunningComfyUI) -> None:
    names = [
        comfyui.post("/upload/image", files={"image": ("cat.png", content)}).json()["name"]
        for content in (b"one", b"two", b"one")
    ]
    assert names == ["cat.png", "cat (1).png", "cat.png"]
    assert (comfyui.folders.input_dir / "cat (1).png").read_bytes() == b"two"


def test_a_mask_becomes_the_alpha_of_the_picture_it_belongs_to(comfyui: RunningComfyUI) -> None:
    Image.new("RGB", (4, 4), "red").save(comfyui.folders.input_dir / "cat.png")
    mask_file = comfyui.folders.temp_dir / "mask.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 77)).save(mask_file)
    reference = json.dumps({"filename": "cat.png", "type": "input", "subfolder": ""})
    response = comfyui.post(
        "/upload/mask",
        data={"original_ref": reference, "subfolder": "clipspace"},
        files={"image": ("m.png", mask_file.read_bytes())},
    )
    assert response.json() == {"name": "m.png", "subfolder": "clipspace", "type": "input"}
    with Image.open(comfyui.folders.input_dir / "clipspace" / "m.png") as masked:
        assert masked.getpixel((0, 0)) == (255, 0, 0, 77)


def test_view_answers_as_recorded(comfyui: RunningComfyUI) -> None:
    comfyui.wait_for(comfyui.submit(quick_graph(prefix="v/one")))
    events: list[Event] = recording("0.3.64/29_view")
    assert_same(Replay(comfyui, "0.3.64/29_view").run().answered())
    for event in events:
        headers = comfyui.get(event["path"], headers=event.get("req_headers")).headers
        recorded = event.get("resp_headers", {}).get("Content-Disposition")
        assert headers.get("Content-Disposition") == recorded, event["path"]


def test_view_gives_the_range_that_is_asked_for(comfyui: RunningComfyUI) -> None:
    (comfyui.folders.output_dir / "digits.txt").write_bytes(b"0123456789")
    response = comfyui.get("/view?filename=digits.txt", headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.content) == (206, b"234")
    unchanged = comfyui.get("/view?filename=digits.txt", headers={"If-None-Match": response.headers["Etag"]})
    assert unchanged.status_code == 304


@pytest.mark.parametrize("wish", ["webp;60", "jpeg;80", "bogus"])
def test_a_preview_is_the_same_picture_in_another_format(comfyui: RunningComfyUI, wish: str) -> None:
    Image.new("RGB", (6, 5), "red").save(comfyui.folders.output_dir / "red.png")
    response = comfyui.get(f"/view?filename=red.png&preview={wish}")
    (comfyui.folders.temp_dir / "got").write_bytes(response.content)
    with Image.open(comfyui.folders.temp_dir / "got") as picture:
        assert picture.size == (6, 5)
        assert picture.format == ("JPEG" if wish.startswith("jpeg") else "WEBP")


def test_a_preview_of_no_picture_fails(comfyui: RunningComfyUI) -> None:
    (comfyui.folders.output_dir / "sound.wav").write_bytes(b"no picture")
    assert comfyui.get("/view?filename=sound.wav&preview=webp").status_code == 500


def _upload(recorded: Any) -> dict[str, Any]:
    """Returns the arguments for `requests` from a record: `<multipart {"image": ["a.png", "98 bytes"]}>`."""
    if isinstance(recorded, dict):
        return {"body": recorded} if "image" in recorded else {"data": recorded}
    fields = json.loads(recorded.removeprefix("<multipart ").removesuffix(">"))
    name, size = fields.pop("image")
    content = b"x" * int(size.split()[0])
    return {"data": fields, "files": {"image": (name, content)}}
