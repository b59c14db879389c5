"""Private addresses in requests of comfyui-api: each place that takes a URL refuses them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.services.custom_files import write

PRIVATE = (
    "http://127.0.0.1:1/a.png",
    "http://169.254.169.254/latest/a.png",
    "https://0x7f000001/a.png",
    "http://[::ffff:10.0.0.1]/a.png",
    "http://localhost/a.png",
)
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {}}, "2": SAVE}


def with_node(class_type: str, name: str, value: object) -> dict[str, Any]:
    return {"prompt": {**GRAPH, "1": {"class_type": class_type, "inputs": {name: value}}}}


def s3_credential(url: str) -> dict[str, Any]:
    auth = {"type": "s3", "access_key_id": "a", "secret_access_key": "hid", "endpoint": url}
    return {"prompt": GRAPH, "credentials": [{"url_pattern": "s3://**", "auth": auth}]}


PLACES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "image": ("prompt", lambda url: with_node("LoadImage", "image", url)),
    "images": ("prompt", lambda url: with_node("VHS_LoadImages", "directory", [url])),
    "video": ("prompt", lambda url: with_node("LoadVideo", "file", url)),
    "audio": ("prompt", lambda url: with_node("LoadAudio", "audio", url)),
    "model": ("prompt", lambda url: with_node("CheckpointLoaderSimple", "ckpt_name", url)),
    "webhook": ("prompt", lambda url: {"prompt": GRAPH, "webhook": url}),
    "webhook_v2": ("prompt", lambda url: {"prompt": GRAPH, "webhook_v2": url}),
    "upload": ("prompt", lambda url: {"prompt": GRAPH, "http_upload": {"url_prefix": url}}),
    "credential": ("prompt", s3_credential),
    "download": ("download", lambda url: {"url": url, "model_type": "vae", "filename": "a.safetensors"}),
    "workflow": ("workflow/copy", lambda url: {"input": {"photo": url}}),
    "webhook of a workflow": ("workflow/copy", lambda url: {"input": {"photo": "a.png"}, "webhook": url}),
    "upload of a workflow": (
        "workflow/copy",
        lambda url: {"input": {"photo": "a.png"}, "http_upload": {"url_prefix": url, "async": True}},
    ),
}


@pytest.fixture
def copying_api(make_api: Callable[..., Api], tmp_path: Path) -> Api:
    graph = {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    photo = {"photo": {"input": "1.image", "type": "file", "required": True}}
    write(tmp_path / "workflows", "copy.json", json.dumps({"workflow": graph, "parameters": photo}))
    return make_api(workflow_dir=tmp_path / "workflows")


@pytest.mark.parametrize("place", PLACES)
def test_a_private_address_is_refused(copying_api: Api, place: str) -> None:
    path, body_of = PLACES[place]
    for url in PRIVATE:
        answer = copying_api.client.post(f"/comfyui-api/{path}", json=body_of(url))
        assert answer.status_code == 400, (url, answer.text)
        assert "hid" not in answer.text
    assert copying_api.service.unfinished_count() == 0
