"""Inputs from URLs and outputs to storage, through a server that is a process of its own, over SSH."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery.output_uploads import OutputUploader
from comfyui_workflow.execution.live_progress import Direction, LiveRun
from comfyui_workflow.runs.credentials import NO_SECRETS
from comfyui_workflow.runs.events import Event
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.runs.upload_target import UploadKind, UploadTarget
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from tests.delivery.test_output_uploads import run_with
from tests.integration.graphs import failing, loaded, painted
from tests.integration.test_jobs import Client
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess
from tests.storage.file_server import Asked, FileServer, serving_files
from tests.storage.s3_server import content_of, keys_in, make_bucket, running_s3

ANYWHERE = GuardedClient(may_reach_private=True)
SECRET = "hush-hush-1234"


def picture(color: tuple[int, int, int] = (255, 0, 0), size: int = 8) -> bytes:
    made = BytesIO()
    Image.new("RGB", (size, size), color).save(made, "PNG")
    return made.getvalue()


def noise(count: int) -> bytes:
    return bytes((at * 7919) % 251 for at in range(4096)) * (count // 4096)


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serving_files() as served:
        served.files["/dir/photo.png"] = picture()
        yield served


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with running_s3() as url:
        yield url


def s3_settings(url: str) -> dict[str, object]:
    return {"aws_endpoint_url": url, "aws_access_key_id": "id", "aws_secret_access_key": SECRET}


@pytest.fixture
def open_server(make_server: Callable[..., ServerProcess], s3_url: str) -> ServerProcess:
    """May reach the servers of the test."""
    return make_server(private_urls="true", **s3_settings(s3_url))


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def color_of(done: Json) -> object:
    assert done["status"] == "completed", done["error_message"]
    return Image.open(done["outputs"][0]["local_path"]).getpixel((0, 0))


def everything_in(directory: Path) -> bytes:
    return b"\n".join(
        path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".png"
    )


def test_inputs_and_outputs_by_url(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer, s3_url: str
) -> None:
    make_bucket(s3_url, "inout")
    requests.put(f"{s3_url}/inout/in/blue.png", data=picture((0, 0, 255)), timeout=10)
    for url, wanted in (
        (f"{files.url}/dir/photo.png", (0, 255, 255)),
        ("s3://inout/in/blue.png", (255, 255, 0)),
    ):
        graph = loaded(url.rpartition("/")[2], prefix="up")
        run = open_server.execute(sandbox.ssh_string, graph, input_images=[url], upload="s3://inout/out/")
        done = open_server.until_finished(run)
        assert color_of(done) == wanted
        key = f"out/{run}/{done['outputs'][0]['filename']}"
        assert done["outputs"][0]["upload_url"] == f"s3://inout/{key}"
        assert content_of(s3_url, "inout", key) == Path(done["outputs"][0]["local_path"]).read_bytes()
        again = open_server.get(f"/{run}/request")["request"]
        assert again["input_images"] == [url]
        assert again["upload"] == {"s3": {"bucket": "inout", "prefix": "out"}}


def test_a_workflow_by_url(open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer) -> None:
    files.files["/flow.json"] = json.dumps(painted(prefix="flow")).encode()
    body = {"ssh_connection": sandbox.ssh_string, "workflow_file": f"{files.url}/flow.json?token={SECRET}"}
    answer = open_server.post("/execute", {**body, "output_dir": str(open_server.output_dir)})
    done = open_server.until_finished(answer.json()["workflow_id"])
    assert (done["status"], done["workflow_name"]) == ("completed", "flow.json")
    assert SECRET not in done["workflow_file"]
    gone = open_server.post("/execute", {**body, "workflow_file": f"{files.url}/nothing.json"})
    assert gone.status_code == 400
    assert "no such file" in gone.json()["message"]


def test_credentials_are_used_and_never_kept(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    files.wants = {"Authorization": f"Bearer {SECRET}"}
    credentials = [
        {"url_pattern": "https://elsewhere/**", "auth": {"type": "bearer", "token": "wrong"}},
        {"url_pattern": f"{files.url}/**", "auth": {"type": "bearer", "token": SECRET}},
    ]
    held: list[bytes] = []
    files.on_request = lambda _: held.append(everything_in(open_server.data_dir / "runs"))
    run = open_server.execute(
        sandbox.ssh_string,
        loaded("photo.png"),
        input_images=[f"{files.url}/dir/photo.png"],
        upload={"http_upload": {"url_prefix": f"{files.url}/results?sig={SECRET}"}},
        credentials=credentials,
    )
    done = open_server.until_finished(run)
    assert color_of(done) == (0, 255, 255)
    [put] = [each for each in files.asked if each.method == "PUT"]
    assert put.path.endswith(f"?sig={SECRET}")
    assert f"/results/{run}/" in put.path
    assert held and not any(SECRET.encode() in each for each in held)
    assert SECRET.encode() not in everything_in(open_server.data_dir)
    assert SECRET not in open_server.log()
    assert SECRET not in str(done) + str(open_server.get(f"/{run}/request"))
    assert list((open_server.data_dir / "url_secrets").iterdir()) == []


def test_a_failed_upload_fails_the_run_and_its_retry_needs_no_gpu(
    open_server: ServerProcess, sandbox: SandboxProcess, s3_url: str
) -> None:
    run = open_server.execute(
        sandbox.ssh_string, painted(prefix="late"), upload={"s3": {"bucket": "not-there"}}
    )
    failed = open_server.until_finished(run)
    assert (failed["status"], failed["error_code"]) == ("failed", "upload_failed")
    assert "not-there" in failed["error_message"]
    assert failed["can_retry"]
    assert failed["outputs"][0]["downloaded"]
    assert failed["outputs"][0]["upload_error"]
    make_bucket(s3_url, "not-there")
    open_server.post(f"/{run}/retry")
    done = open_server.until_status(run, "completed")
    assert (done["submissions"], done["outputs"][0]["upload_error"]) == (1, None)
    assert len(keys_in(s3_url, "not-there")) == 1


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_takes_no_put_is_not_asked_again(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer, status: int
) -> None:
    files.faults = [status]
    run_id = open_server.execute(sandbox.ssh_string, painted(), upload=f"{files.url}/renders")
    failed = open_server.until_finished(run_id)
    assert failed["error_code"] == "upload_failed"
    assert f"status {status}: it does not take files with PUT" in failed["error_message"]
    assert len([each for each in files.asked if each.method == "PUT"]) == 1


def test_a_storage_that_is_away_for_a_moment_is_tried_again(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    files.faults = [503, 503]
    run = open_server.execute(
        sandbox.ssh_string, painted(prefix="again"), upload={"http_upload": {"url_prefix": files.url}}
    )
    done = open_server.until_status(run, "completed")
    assert done["outputs"][0]["upload_error"] is None
    assert sum(each.method == "PUT" for each in files.asked) == 3


@pytest.mark.parametrize("moment", ["before the first", "between", "before the answer"])
def test_a_server_killed_while_it_uploads_uploads_the_rest(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer, moment: str
) -> None:
    """One execution, and every output is there."""
    killed = threading.Event()
    began: list[Asked] = []
    at = {"before the first": 1, "between": 2, "before the answer": 3}[moment]

    def kill(asked: Asked) -> None:
        if sum(each.method == "PUT" for each in files.asked) >= at and not began:
            began.append(asked)
            open_server.kill()
            killed.set()

    files.on_request = kill
    run = open_server.execute(
        sandbox.ssh_string,
        painted(batch=3, prefix="killed"),
        upload={"http_upload": {"url_prefix": files.url}},
    )
    assert killed.wait(60)
    open_server.start()
    done = open_server.until_status(run, "completed", timeout_s=60)
    assert done["submissions"] == 1
    for output in done["outputs"]:
        path = output["upload_url"].removeprefix(files.url)
        assert files.files[path] == Path(output["local_path"]).read_bytes()


def test_a_server_killed_while_it_downloads_resumes(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    whole = picture(size=8) + noise(3_000_000)
    files.files["/big.png"] = whole
    files.faults = ["cut 2000000"]
    killed = threading.Event()

    def kill(_: Asked) -> None:
        if files.count("GET", "/big.png") == 2:
            open_server.kill()
            killed.set()

    files.on_request = kill
    run = open_server.execute(
        sandbox.ssh_string, loaded("big.png", prefix="big"), input_images=[f"{files.url}/big.png"]
    )
    assert killed.wait(60)
    open_server.start()
    done = open_server.until_finished(run, timeout_s=60)
    assert done["status"] == "completed", done["error_message"]
    ranges = [each.headers.get("Range") for each in files.asked]
    assert ranges[0] is None
    assert ranges[-1] == "bytes=2000000-"


def test_a_cancelled_run_stops_its_download(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: Asked) -> None:
        asked.set()
        go_on.wait(30)

    files.on_request = hold
    run = open_server.execute(
        sandbox.ssh_string, loaded("photo.png"), input_images=[f"{files.url}/dir/photo.png"]
    )
    assert asked.wait(30)
    open_server.post(f"/{run}/cancel")
    done = open_server.until_finished(run)
    go_on.set()
    assert done["status"] == "cancelled"
    assert done["submissions"] == 0


def test_an_input_that_is_not_there_fails_before_the_gpu(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    run = open_server.execute(sandbox.ssh_string, loaded("gone.png"), input_images=[f"{files.url}/gone.png"])
    done = open_server.until_finished(run)
    assert (done["error_code"], done["submissions"]) == ("input_not_downloaded", 0)
    assert "there is no such file" in done["error_message"]
    files.files["/gone.png"] = picture()
    open_server.post(f"/{run}/retry")
    assert color_of(open_server.until_status(run, "completed")) == (0, 255, 255)


def test_a_batch_has_its_inputs_and_outputs_by_url(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    colors = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
    urls = [f"{files.url}/{name}.png" for name in colors]
    files.files |= {f"/{name}.png": picture(color) for name, color in colors.items()}
    body: dict[str, Any] = {
        "ssh_connection": sandbox.ssh_string,
        "workflow": loaded("x.png", prefix="batch"),
        "rows": [{"1.image": url} for url in urls],
        "input_images": urls,
        "output_dir": str(open_server.output_dir),
        "upload": {"http_upload": {"url_prefix": f"{files.url}/out"}},
    }
    answer = requests.post(f"{open_server.url}/batch", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    found = []
    for run in answer.json()["workflow_ids"]:
        done = open_server.until_finished(run)
        found.append(color_of(done))
        assert files.files[done["outputs"][0]["upload_url"].removeprefix(files.url)]
    assert found == [(0, 255, 255), (255, 0, 255), (255, 255, 0)]
    request = open_server.get(f"/{answer.json()['workflow_ids'][1]}/request")["request"]
    assert (request["inputs"], request["input_images"]) == ({"1.image": urls[1]}, [urls[1]])
    again = open_server.post("/execute", {"again": answer.json()["workflow_ids"][1]})
    assert color_of(open_server.until_finished(again.json()["workflow_id"])) == (255, 0, 255)


@pytest.mark.parametrize(
    "body",
    [
        {"input_images": ["http://127.0.0.1:1/a.png"]},
        {"input_images": ["http://169.254.169.254/latest/a.png"]},
        {"input_images": ["https://0x7f000001/a.png"]},
        {"workflow_file": "http://localhost/flow.json", "workflow": None},
        {"upload": "http://10.0.0.1/put"},
        {"upload": {"http_upload": {"url_prefix": "http://[::1]/put"}}},
        {
            "credentials": [
                {
                    "url_pattern": "s3://**",
                    "auth": {
                        "type": "s3",
                        "access_key_id": "a",
                        "secret_access_key": SECRET,
                        "endpoint": "http://127.0.0.1:9000",
                    },
                }
            ]
        },
    ],
)
def test_private_addresses_are_refused_everywhere(
    server: ServerProcess, sandbox: SandboxProcess, body: Json
) -> None:
    whole = {"ssh_connection": sandbox.ssh_string, "workflow": painted(), **body}
    for path in ("/execute", "/validate"):
        answer = server.post(path, {name: value for name, value in whole.items() if value is not None})
        assert answer.status_code == 400, answer.text
        assert "not public" in answer.json()["message"]
        assert SECRET not in answer.text


def test_nothing_hidden_is_left_of_pictures_of_the_websocket_that_were_uploaded(
    open_server: ServerProcess, sandbox: SandboxProcess, s3_url: str
) -> None:
    make_bucket(s3_url, "sent")
    graph = painted(prefix="seen")
    graph["5"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    done = open_server.until_finished(open_server.execute(sandbox.ssh_string, graph, upload="s3://sent/"))
    assert done["status"] == "completed", done["error_message"]
    assert len(keys_in(s3_url, "sent")) == 2
    assert not list(open_server.output_dir.glob(".*"))


def test_outputs_of_a_failed_prompt_are_not_uploaded(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    run = open_server.execute(
        sandbox.ssh_string, failing(), upload={"http_upload": {"url_prefix": files.url}}
    )
    assert open_server.until_finished(run)["error_code"] == "prompt_failed"
    assert not any(each.method == "PUT" for each in files.asked)


def test_a_job_takes_images_from_a_bucket(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess, s3_url: str
) -> None:
    make_bucket(s3_url, "job-images")
    requests.put(f"{s3_url}/job-images/in/blue.png", data=picture((0, 0, 255)), timeout=10)
    server = make_server(default_endpoint=sandbox.ssh_string, **s3_settings(s3_url))
    client = Client(server)
    images = ({"name": "blue.png", "image": "s3://job-images/in/blue.png"},)
    job = client.order(loaded("blue.png", prefix="job"), images=images)
    assert color_of(server.until_finished(job["id"])) == (255, 255, 0)
    gone = client.order(loaded("x.png"), images=({"name": "x.png", "image": "s3://job-images/gone.png"},))
    failed = server.until_finished(gone["id"])
    assert (failed["error_code"], failed["submissions"]) == ("image_not_fetched", 0)
    assert "there is no such file" in failed["error_message"]


def test_images_of_jobs_come_from_the_cache_and_are_resumed(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess, files: FileServer
) -> None:
    blue = picture((0, 0, 255)) + noise(4_000_000)
    files.files["/blue.png"] = blue
    files.faults = ["cut 2000000"]
    server = make_server(default_endpoint=sandbox.ssh_string, private_urls="true")
    images = ({"name": "blue.png", "image": f"{files.url}/blue.png"},)
    for _ in range(2):
        job = Client(server).order(loaded("blue.png", prefix="job"), images=images)
        assert color_of(server.until_finished(job["id"])) == (255, 255, 0)
    cut, rest, again = files.asked
    assert "Range" not in cut.headers
    assert rest.headers["Range"] == "bytes=2000000-"
    assert "If-None-Match" in again.headers


@contextmanager
def dripping() -> Iterator[str]:
    """A web server that sends each file a byte at a time, without an end. Yields its URL."""
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with suppress(OSError):
                while not is_over.wait(0.02):
                    self.wfile.write(b"x")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        is_over.set()
        server.shutdown()
        thread.join()


def test_a_slow_server_holds_back_only_its_own_runs(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    """Also a run that waits for it can be cancelled at once."""
    with dripping() as slow:
        waiting = [
            open_server.execute(sandbox.ssh_string, loaded("a.png"), input_images=[f"{slow}/{number}/a.png"])
            for number in range(9)
        ]
        images = [f"{files.url}/dir/photo.png"]
        fast = open_server.execute(sandbox.ssh_string, loaded("photo.png"), input_images=images)
        assert color_of(open_server.until_finished(fast)) == (0, 255, 255)
        for run_id in reversed(waiting):
            open_server.post(f"/{run_id}/cancel")
        for run_id in waiting:
            assert open_server.until_finished(run_id)["status"] == "cancelled"


def test_the_later_upload_to_one_url_wins(tmp_path: Path, files: FileServer) -> None:
    target = UploadTarget(kind=UploadKind.HTTP, place=files.url, by_run=False)
    uploader, began = OutputUploader(StorageRegistry(StorageSettings(), ANYWHERE)), threading.Event()
    go_on = threading.Event()

    def hold(asked: Asked) -> None:
        if not began.is_set():
            began.set()
            go_on.wait(30)

    files.on_request = hold
    outcomes: dict[str, list[Event]] = {"one": [], "two": []}

    def upload(name: str, content: bytes) -> None:
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        run = run_with(OutputFile(filename="a.png", local_path=str(path)))
        request = replace(run.request, upload=target)
        uploader.upload(
            replace(run, run_id=name, request=request, are_outputs_known=True),
            NO_SECRETS,
            open_transfer=lambda filename, stop: LiveRun().transfer(Direction.UPLOAD, filename, stop),
            record=outcomes[name].append,
            stop=CancelToken(),
        )

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(upload, "one", bytes(20_000_000))
        assert began.wait(30)
        two = pool.submit(upload, "two", b"2")
        deadline = time.monotonic() + 30
        while "two" not in uploader._latest._winners.values():
            assert time.monotonic() < deadline
        go_on.set()
        one.result(30)
        two.result(30)
    assert files.files["/a.png"] == b"2"
    assert any("A later run has uploaded" in str(event) for event in outcomes["one"])
    assert not any("later run" in str(event) for event in outcomes["two"])


def test_the_command_takes_urls(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    files.files["/flow.json"] = json.dumps(loaded("photo.png", prefix="cli")).encode()
    done = run_python(
        "-m",
        "comfyui_workflow",
        "run",
        f"{files.url}/flow.json",
        "--ssh",
        sandbox.ssh_string,
        "--input",
        f"{files.url}/dir/photo.png",
        "--upload",
        f"{files.url}/put",
        "--output-dir",
        str(open_server.output_dir),
        "--server",
        open_server.url.removesuffix("/comfyui/workflow"),
    )
    assert done.returncode == 0, done.stderr
    assert f"Uploaded to {files.url}/put/" in done.stderr
    assert sum(path.startswith("/put/") for path in files.files) == 1


def test_a_run_that_downloads_does_not_keep_others_from_the_gpu(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer
) -> None:
    go_on = threading.Event()
    files.on_request = lambda _: go_on.wait(60)
    image = f"{files.url}/dir/photo.png"
    slow_ones = [
        open_server.execute(sandbox.ssh_string, loaded("photo.png"), input_images=[image]) for _ in range(4)
    ]
    others = [open_server.execute(sandbox.ssh_string, painted(prefix=f"o{number}")) for number in range(2)]
    for run in others:
        assert open_server.until_finished(run)["status"] == "completed"
    assert "Downloading photo.png" in open_server.progress(slow_ones[0])["message"]
    go_on.set()
    for run in slow_ones:
        assert color_of(open_server.until_finished(run)) == (0, 255, 255)
    assert files.count("GET", "/dir/photo.png") <= 4


def test_a_run_in_parts_uploads_the_outputs_of_all_parts_once(
    open_server: ServerProcess, sandbox: SandboxProcess, files: FileServer, s3_url: str
) -> None:
    make_bucket(s3_url, "parts")
    run_id = open_server.execute(
        sandbox.ssh_string,
        loaded("photo.png", prefix="shared"),
        spread=2,
        input_images=[f"{files.url}/dir/photo.png"],
        upload="s3://parts/night",
        comfyui_input_dir=str(sandbox.input_dir),
    )
    done = open_server.until_finished(run_id, timeout_s=60)
    assert done["status"] == "completed", done
    urls = [output["upload_url"] for output in done["outputs"]]
    assert [url.rpartition("/")[0] for url in urls] == [
        f"s3://parts/night/{run_id}/part_{number}" for number in (1, 2)
    ]
    assert sorted(keys_in(s3_url, "parts")) == [url.removeprefix("s3://parts/") for url in urls]
