"""The API of comfyui-api: what its clients send and get, over a real instance."""

import base64
import io
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from PIL import Image
from standardwebhooks.webhooks import Webhook

from tests.delivery.receiver import Answer, Receiver, receiving
from tests.instance import Instance
from tests.integration.graphs import failing, loaded, painted, slow
from tests.sandbox.running_comfyui import wait_until
from tests.server_process import ServerProcess

SECRET = "testsecret"
NO_IMAGE = "Failed to download image for node 1: "
Json = dict[str, Any]


class Client:
    """A client of comfyui-api. Its prompts run on one instance."""

    def __init__(self, base_url: str, target: str | None = None) -> None:
        self.base_url = base_url
        self.headers = {} if target is None else {"Comfyui-Target": target}

    def post(self, path: str, **body: Any) -> requests.Response:
        return requests.post(self.base_url + path, json=body, headers=self.headers, timeout=60)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.base_url + path, headers=self.headers, timeout=30)

    def prompt(self, graph: Json, **fields: Any) -> Json:
        answer = self.post("/prompt", prompt=graph, **fields)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
def client(server: ServerProcess, instance: Instance) -> Client:
    return Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), instance.ssh_string)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def hooked(
    make_server: Callable[..., ServerProcess], instance: Instance, **settings: Any
) -> tuple[ServerProcess, Client]:
    server = make_server(webhook_private=True, webhook_secret=SECRET, **settings)
    return server, Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), instance.ssh_string)


def picture(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_prompt_is_answered_with_its_outputs(client: Client, server: ServerProcess) -> None:
    prompt_id = str(uuid.uuid4())
    answer = client.prompt(painted(0x102030, batch=2), id=prompt_id, unknown="dropped")
    assert answer.keys() == {"id", "prompt", "images", "filenames", "stats"}
    assert answer["id"] == prompt_id
    assert answer["prompt"]["3"]["inputs"]["filename_prefix"] == f"{prompt_id}_out"
    assert answer["filenames"] == [f"{prompt_id}_out_0000{n}_.png" for n in (1, 2)]
    assert [picture(each).getpixel((0, 0)) for each in answer["images"]] == [(0xEF, 0xDF, 0xCF)] * 2
    stats = answer["stats"]
    assert set(stats) == {
        "comfy_execution",
        "preprocess_time",
        "comfy_round_trip_time",
        "postprocess_time",
        "upload_time",
        "total_time",
    }
    execution = stats["comfy_execution"]
    assert execution["duration"] == execution["end"] - execution["start"] == execution["total"]["duration"]
    assert execution["nodes"].keys() <= {"1", "2", "3"}
    state = client.get(f"/prompt/{prompt_id}").json()
    assert (state["status"], state["images"]) == ("completed", answer["images"])
    assert server.progress(state["workflow_id"])["status"] == "completed"


def test_an_id_is_made_if_there_is_none_and_may_be_used_again(client: Client) -> None:
    first = client.prompt(painted(1))
    assert uuid.UUID(first["id"])
    again = client.prompt(painted(2), id=first["id"])
    assert again["id"] == first["id"]
    assert again["images"] != first["images"]


@pytest.mark.parametrize("kind", ["base64", "data URI", "file on the instance"])
def test_an_input_image_comes_in_the_prompt(client: Client, instance: Instance, kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (24, 16), (255, 0, 0)).save(content, "JPEG")
    text = base64.b64encode(content.getvalue()).decode()
    image = {"base64": text, "data URI": f"data:image/jpeg;base64,{text}"}.get(kind)
    if image is None:
        image = f"{uuid.uuid4()}.jpg"
        (instance.sandbox.input_dir / image).write_bytes(content.getvalue())
    answer = client.prompt(loaded(image))
    assert picture(answer["images"][0]).size == (24, 16)
    if kind != "file on the instance":
        assert answer["prompt"]["1"]["inputs"]["image"].endswith(".jpg")


def test_an_input_image_comes_from_a_url(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (24, 16)).save(content, "PNG")
    receiver.answers = [_served(content.getvalue())]
    _, client = hooked(make_server, instance)
    assert picture(client.prompt(loaded(receiver.url("/a.png")))["images"][0]).size == (24, 16)
    receiver.answers = [_served(b"", status=404)]
    refused = client.post("/prompt", prompt=loaded(receiver.url("/gone.png")))
    assert refused.status_code == 400
    assert refused.json()["location"] == "prompt.1.inputs.image"
    assert refused.json()["error"].startswith("Failed to download image for node 1: ")


@pytest.mark.parametrize("format_", ["jpeg", "jpg", "webp"])
def test_outputs_are_converted(client: Client, format_: str) -> None:
    answer = client.prompt(painted(4), convert_output={"format": format_, "options": {"quality": 70}})
    assert answer["filenames"][0].endswith(f".{format_}")
    assert picture(answer["images"][0]).format == ("WEBP" if format_ == "webp" else "JPEG")
    options = answer["convert_output"]["options"]
    assert options["quality"] == 70
    assert options.get("chromaSubsampling", "4:2:0") == "4:2:0"
    assert len(options) == (7 if format_ == "webp" else 9)


def test_an_editor_file_is_accepted(client: Client) -> None:
    nodes = [
        {"id": 1, "type": "EmptyImage", "pos": [0, 0], "size": [1, 1], "flags": {}, "order": 0, "mode": 0,
         "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
         "properties": {}, "widgets_values": [32, 32, 1, 5]},
        {"id": 2, "type": "SaveImage", "pos": [0, 0], "size": [1, 1], "flags": {}, "order": 1, "mode": 0,
         "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
         "properties": {}, "widgets_values": ["from_editor"]},
    ]  # fmt: skip
    editor = {"last_node_id": 2, "last_link_id": 1, "nodes": nodes, "links": [[1, 1, 0, 2, 0, "IMAGE"]],
              "groups": [], "config": {}, "extra": {}, "version": 0.4}  # fmt: skip
    answer = client.prompt(editor)
    assert answer["filenames"][0].startswith("from_editor_")
    assert answer["prompt"]["2"]["class_type"] == "SaveImage"


@pytest.mark.parametrize(
    ("body", "error", "location"),
    [
        ({}, "Bad Request", None),
        ({"prompt": []}, "Bad Request", None),
        ({"prompt": {"1": {"inputs": {}}}}, "Bad Request", None),
        ({"prompt": {"1": 5}}, "Bad Request", None),
        ({"prompt": painted(), "id": 5}, "Bad Request", None),
        ({"prompt": painted(), "webhook": None}, "Bad Request", None),
        ({"prompt": painted(), "convert_output": {"format": "png"}}, "Bad Request", None),
        (
            {"prompt": painted(), "convert_output": {"format": "jpeg", "options": {"quality": 101}}},
            "convert_output.options.quality must be a whole number from 1 to 100",
            "convert_output.options.quality",
        ),
        (
            {"prompt": {"1": {"class_type": "PreviewImage", "inputs": {}}}},
            'Prompt must contain a node with a "filename_prefix" input, such as "SaveImage"',
            "prompt",
        ),
        ({"prompt": loaded("nonsense")}, NO_IMAGE, "prompt.1.inputs.image"),
        (
            {"prompt": loaded("../../etc/a.png")},
            "Failed to download image for node 1: ",
            "prompt.1.inputs.image",
        ),
        ({"prompt": loaded("/etc/a.png")}, NO_IMAGE, "prompt.1.inputs.image"),
        (
            {"prompt": loaded("ftp://a/b.png")},
            "Failed to download image for node 1: ",
            "prompt.1.inputs.image",
        ),
        (
            {"prompt": loaded("http://127.0.0.1/b.png")},
            "Failed to download image for",
            "prompt.1.inputs.image",
        ),
        ({"prompt": painted(), "webhook": "http://169.254.169.254/"}, "webhook: ", "webhook"),
    ],
)
def test_a_bad_request_is_refused_in_its_words(
    client: Client, body: Json, error: str, location: str | None
) -> None:
    answer = client.post("/prompt", **body)
    assert answer.status_code == 400, answer.text
    assert answer.json().get("location") == location
    assert answer.json()["error"].startswith(error) if location else answer.json() == {"error": error}


def test_a_prompt_that_cannot_run_says_so(client: Client) -> None:
    unknown = client.post("/prompt", prompt={**painted(), "9": {"class_type": "NoSuchNode", "inputs": {}}})
    assert unknown.status_code == 500
    assert unknown.json()["error"] == "Internal Server Error"
    assert unknown.json()["message"].startswith("Failed to queue prompt: ")
    assert "NoSuchNode" in unknown.json()["message"]
    failed = client.post("/prompt", prompt=failing("it broke"))
    assert failed.status_code == 500
    assert failed.json()["message"].startswith("Failed to get prompt outputs: ")
    assert "it broke" in failed.json()["message"]


def test_a_waiting_prompt_is_dequeued_and_a_running_one_ends(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver
) -> None:
    server, client = hooked(make_server, instance)
    for prompt_id in ("running", "waiting"):
        answer = client.post("/prompt", id=prompt_id, prompt=slow(3, steps=600), webhook=receiver.url())
        assert (answer.status_code, answer.json()["status"]) == (202, "ok")
    run_ids = [client.get(f"/prompt/{each}").json()["workflow_id"] for each in ("running", "waiting")]
    server.until_status(run_ids[0], "executing")
    for prompt_id in ("waiting", "running"):
        answer = client.post("/interrupt", id=prompt_id)
        assert (answer.status_code, answer.json()) == (200, {"id": prompt_id, "interrupted": "success"})
    assert [server.until_finished(each)["status"] for each in run_ids] == ["cancelled", "cancelled"]
    again = client.post("/interrupt", id="running")
    assert (again.status_code, again.json()) == (404, {"id": "running", "interrupted": "failed"})
    prompt_ids = {server.progress(run_ids[1])["prompt_id"]}
    assert not prompt_ids & {each["prompt_id"] for each in instance.sandbox.executions()}
    wait_until(lambda: len(receiver.heard) == 2, what="both failures were sent")
    bodies = [json.loads(each.content) for each in receiver.heard]
    assert {each["event"] for each in bodies} == {"prompt.failed"}
    assert {each["id"] for each in bodies} == {"running", "waiting"}


def test_webhooks_of_both_versions(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver
) -> None:
    _, client = hooked(make_server, instance)
    answer = client.post(
        "/prompt",
        id="mine",
        prompt=painted(7, batch=2),
        webhook=receiver.url("/v1"),
        webhook_v2=receiver.url("/v2"),
    )
    assert answer.status_code == 202
    assert answer.json().keys() == {"id", "prompt", "status", "webhook", "webhook_v2"}
    wait_until(lambda: len(receiver.heard) == 3, what="two outputs and one whole answer were sent")
    outputs = [each.content for each in receiver.heard if each.path == "/v1"]
    for number, content in enumerate(sorted(map(json.loads, outputs), key=_filename)):
        assert content.keys() == {"event", "image", "id", "filename", "prompt", "stats"}
        assert (content["event"], content["id"]) == ("output.complete", "mine")
        assert content["filename"] == f"mine_out_0000{number + 1}_.png"
        assert picture(content["image"]).size == (32, 32)
    (whole,) = [each for each in receiver.heard if each.path == "/v2"]
    headers = {name.lower(): value for name, value in whole.headers.items()}
    body = Webhook(f"{SECRET}==").verify(whole.content.decode(), headers)
    assert headers["webhook-id"] == "mine"
    assert (body["type"], body["id"], len(body["images"])) == ("prompt.complete", "mine", 2)
    assert body["filenames"] == ["mine_out_00001_.png", "mine_out_00002_.png"]


def test_a_failure_is_told_to_the_second_version_if_there_are_both(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver
) -> None:
    _, client = hooked(make_server, instance)
    urls = {"webhook": receiver.url("/v1"), "webhook_v2": receiver.url("/v2")}
    client.post("/prompt", id="ümlaut\n", prompt=failing(), **urls)
    wait_until(lambda: receiver.heard, what="the failure was sent")
    (heard,) = receiver.heard
    body = Webhook(f"{SECRET}==").verify(
        heard.content.decode(), {name.lower(): value for name, value in heard.headers.items()}
    )
    assert heard.path == "/v2"
    assert (body["type"], body["id"]) == ("prompt.failed", "ümlaut\n")
    assert body["error"].startswith("Failed to get prompt outputs: ")


def test_its_own_port_has_the_routes_at_the_root(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    port = free_port()
    server, _ = hooked(
        make_server, instance, comfyui_api_port=port, comfyui_api_target=instance.ssh_string,
        comfyui_api_prepend_filenames=False, comfyui_api_max_queue_depth=1,
    )  # fmt: skip
    client = Client(f"http://127.0.0.1:{port}")
    assert client.get("/health").json()["status"] == "healthy"
    assert client.get("/ready").json()["status"] == "ready"
    assert client.prompt(painted(9), id="x")["filenames"] == ["x_00001_.png"]
    assert "checkpoints" in client.get("/models").json()
    assert client.get("/docs").status_code == 200
    assert "/prompt" in client.get("/docs/json").json()["paths"]
    missing = client.get("/comfyui/workflow/state")
    expected = "Route GET:/comfyui/workflow/state not found"
    assert (missing.status_code, missing.json()["message"]) == (404, expected)
    client.post("/prompt", id="long", prompt=slow(steps=600), webhook=f"http://127.0.0.1:{port}/")
    full = client.get("/ready")
    assert (full.status_code, full.json()["status"]) == (503, "not ready")
    client.post("/interrupt", id="long")
    wait_until(lambda: client.get("/ready").status_code == 200, what="there is room again")
    assert server.terminate() == 0


def test_a_token_guards_its_own_port_too(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    port = free_port()
    hooked(
        make_server,
        instance,
        comfyui_api_port=port,
        api_token="a token of this test",
        ssh_key_dirs="/",
        local_instances=True,
    )
    client = Client(f"http://127.0.0.1:{port}", instance.ssh_string)
    assert client.get("/health").status_code == 200
    assert client.post("/prompt", prompt=painted()).status_code == 401
    client.headers["Authorization"] = "Bearer a token of this test"
    assert client.prompt(painted())["images"]


@pytest.mark.parametrize("step", ["queued", "executing", "finished"])
def test_a_killed_server_executes_once_and_tells_everything(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver, step: str
) -> None:
    server, client = hooked(make_server, instance)
    body = {"prompt": slow(11, steps=10, prefix=step), "webhook_v2": receiver.url()}
    client.post("/prompt", id=step, **body)
    run_id = client.get(f"/prompt/{step}").json()["workflow_id"]
    if step != "queued":
        server.until_status(run_id, *(("executing",) if step == "executing" else ("completed",)))
    server.kill()
    server.start()
    client.base_url = server.url.replace("/comfyui/workflow", "/comfyui-api")
    done = server.until_finished(run_id)
    wait_until(lambda: receiver.heard, what="the end was sent")
    wait_until(lambda: "images" in client.get(f"/prompt/{step}").json(), what="the prompt is completed")
    state = client.get(f"/prompt/{step}").json()
    assert (done["status"], state["status"], len(state["images"])) == ("completed", "completed", 1)
    executed = [each["prompt_id"] for each in instance.sandbox.executions()]
    assert executed.count(done["prompt_id"]) == 1
    assert {json.loads(each.content)["type"] for each in receiver.heard} == {"prompt.complete"}


def _filename(body: Json) -> str:
    return str(body["filename"])


def _served(content: bytes, status: int = 200) -> Any:
    return Answer(status=status, headers={"Content-Length": str(len(content))}, pieces=(content,))


@pytest.mark.parametrize("is_async", [False, True])
def test_outputs_are_uploaded(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver, is_async: bool
) -> None:
    server, client = hooked(make_server, instance)
    prefix = receiver.url("/base").replace("http://", "http://user:hidden@")
    credentials = [{"url_pattern": "https://a/**", "auth": {"type": "bearer", "token": "hidden too"}}]
    answer = client.post(
        "/prompt",
        id="up",
        prompt=painted(8),
        convert_output={"format": "webp"},
        credentials=credentials,
        http_upload={"url_prefix": prefix, "async": is_async},
    )
    assert answer.status_code == (202 if is_async else 200), answer.text
    assert "hidden" not in answer.text
    wait_until(lambda: client.get("/prompt/up").json()["status"] == "completed", what="it is uploaded")
    state = client.get("/prompt/up").json()
    assert state["images"] == [receiver.url("/base/up_out_00001_.webp")]
    assert state["http_upload"] == {"url_prefix": receiver.url("/base"), "async": is_async}
    assert state["credentials"] == [{"url_pattern": "https://a/**", "auth": {"type": "bearer"}}]
    (heard,) = receiver.heard
    assert (heard.method, heard.path) == ("PUT", "/base/up_out_00001_.webp")
    assert Image.open(io.BytesIO(heard.content)).format == "WEBP"
    assert server.progress(state["workflow_id"])["status"] == "completed"


def test_an_upload_that_fails_is_no_success(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver
) -> None:
    _, client = hooked(make_server, instance)
    receiver.answers = [Answer(status=403)]
    answer = client.post("/prompt", prompt=painted(), http_upload={"url_prefix": receiver.url()})
    assert answer.status_code == 500
    assert answer.json()["message"].startswith("Failed to upload outputs: ")
    assert client.post("/prompt", prompt=painted(), s3={"prefix": "x"}).json() == {"error": "Bad Request"}
