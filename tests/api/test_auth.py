"""Authorization of requests: token, host name and origin of the page."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.app import create_server
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.proxy.used_ports import UsedPorts
from comfyui_workflow.settings import load_settings
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH

STATE = "/comfyui/workflow/state"
FOREIGN = ["http://evil.example", "null", "https://localhost.evil.example", "http://10.0.78.66.evil.example:80",
           "http://evil.example#localhost", "file://", "http://[", "\xff"]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_can_neither_read_nor_start_anything(api: Api, origin: str) -> None:
    for method, path in (("GET", STATE), ("POST", "/comfyui/workflow/x/cancel"), ("GET", "/health")):
        answer = api.client.open(path, method=method, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
    body = {"ssh_connection": SSH, "workflow": GRAPH}
    assert (
        api.client.post("/comfyui/workflow/execute", json=body, headers={"Origin": origin}).status_code == 403
    )
    assert api.executor.started == []


def test_a_cross_site_request_without_an_origin_is_refused(api: Api) -> None:
    assert api.client.get(STATE, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert api.client.get(STATE, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "mode", "destination", "status"),
    [
        ("GET", "navigate", "document", 200),
        ("POST", "navigate", "document", 403),
        ("GET", "navigate", "iframe", 403),
        ("GET", "no-cors", "image", 403),
        ("GET", "navigate", None, 403),
    ],
)
def test_a_link_of_another_site_may_be_followed(
    api: Api, method: str, mode: str, destination: str | None, status: int
) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
    if destination:
        headers["Sec-Fetch-Dest"] = destination
    path = STATE if method == "GET" else "/comfyui/workflow/x/cancel"
    assert api.client.open(path, method=method, headers=headers).status_code == status


SPECIFIED = ["http://10.0.78.66", "http://localhost", "http://127.0.0.1"]
OTHER_PORTS = ["http://127.0.0.1:8188", "http://localhost:3000", "http://[::1]:8188", "https://localhost",
               "http://10.0.78.66:8080", "http://localhost:5001"]  # fmt: skip


@pytest.mark.parametrize("origin", SPECIFIED)
def test_pages_of_the_specified_origins_may_use_the_api(api: Api, origin: str) -> None:
    answer = api.client.get(STATE, headers={"Origin": origin, "Host": "localhost:5000"})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Referer": f"{origin}/"}
    assert api.client.get(STATE, headers={**embedded, "Host": "localhost:5000"}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", OTHER_PORTS)
def test_a_page_of_another_port_is_refused_by_the_server_itself(api: Api, origin: str, method: str) -> None:
    told = {"Origin": origin, "Access-Control-Request-Method": "POST", "Host": "127.0.0.1:5000"}
    answer = api.client.open("/comfyui/workflow/execute", method=method, headers=told)
    assert answer.status_code == 403
    assert "COMFYUI_WORKFLOW_CORS_HOSTS" in answer.json["message"]
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("referer", [None, "http://127.0.0.1:8188/", "http://evil.example/"])
@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_a_request_without_an_origin_is_known_by_its_page(api: Api, site: str, referer: str | None) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Host": "127.0.0.1:5000"}
    if referer:
        headers["Referer"] = referer
    assert api.client.get(STATE, headers=headers).status_code == 403


def test_a_browser_that_tells_only_the_referer(api: Api) -> None:
    own = {"Host": "127.0.0.1:5000"}
    for referer, status in (
        ("http://127.0.0.1:8188/", 403),
        ("https://evil.example/page", 403),
        ("about:blank", 403),
        ("http://127.0.0.1:5000/", 200),
        ("http://localhost/", 200),
        ("", 200),
    ):
        assert api.client.get(STATE, headers={**own, "Referer": referer}).status_code == status, referer
        cancelled = api.client.post("/comfyui/workflow/x/cancel", headers={**own, "Referer": referer})
        assert cancelled.status_code == (403 if status == 403 else 404), referer
        assert api.client.get("/", headers={**own, "Referer": referer}).status_code == 200


LOCAL_PORT = ["http://127.0.0.1:8188", "http://localhost:8188", "http://[::1]:8188", "https://LOCALHOST:8188",
              "http://x.localhost:8188", "http://127.1:8188", "http://localhost.:8188"]  # fmt: skip


@pytest.mark.parametrize("origin", LOCAL_PORT)
def test_a_page_of_an_instance_is_never_allowed(make_api: Callable[..., Api], origin: str) -> None:
    """Neither a setting nor a host name of the server itself allows it."""
    api = make_api(cors_hosts=",".join([*LOCAL_PORT, "http://localhost:3000"]))
    fields = {"name": "left", "ssh_connection": SSH, "local_port": 8188}
    assert api.client.post("/comfyui/instances", json=fields).status_code == 201
    for headers in (
        {"Origin": origin},
        {"Origin": origin, "Host": origin.partition("//")[2].replace("x.", "").replace("127.1", "127.0.0.1")},
        {"Referer": f"{origin}/x", "Sec-Fetch-Site": "same-site"},
    ):
        if "localhost." in headers.get("Host", ""):
            continue
        answer = api.client.get(STATE, headers=headers)
        assert answer.status_code == 403, headers
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    assert api.client.get(STATE, headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_a_local_port_of_an_instance_that_is_gone_stays_one(
    make_api: Callable[..., Api], tmp_path: Path
) -> None:
    """A page from that port may still be open in a browser."""
    used = UsedPorts(tmp_path / "data" / "local_ports.json")
    used.add([8188])
    headers = {"Origin": "http://127.0.0.1:8188"}
    settings = load_settings(
        data_dir=tmp_path / "data", state_file=tmp_path / "state", cors_hosts=headers["Origin"]
    )
    server = create_server(settings)
    server.parts.instances.local_ports.start()
    try:
        answer = server.app.test_client().get(STATE, headers=headers)
    finally:
        server.parts.instances.local_ports.stop()
    assert answer.status_code == 403
    assert "local_ports.json" in answer.json["message"]


def test_a_name_bound_to_loopback_by_somebody_else_is_refused(make_api: Callable[..., Api]) -> None:
    api = make_api(allowed_hosts="gpu.example, other.example")
    for host, status in (
        ("evil.example", 403),
        ("evil.example:5000", 403),
        ("[", 403),
        ("[::1", 403),
        ("localhost@evil.example", 403),
        ("localhost:5000", 200),
        ("127.0.0.1", 200),
        ("[::1]:5000", 200),
        ("gpu.example:5000", 200),
    ):
        assert api.client.get(STATE, headers={"Host": host}).status_code == status, host


def test_with_a_token_every_route_but_health_needs_it(make_api: Callable[..., Api]) -> None:
    api = make_api(api_token="s3cret-tökén")
    given = "s3cret-tökén".encode().decode("latin-1")
    for authorization in (None, "Bearer", "Bearer wrong", given, f"Basic {given}"):
        headers = {"Authorization": authorization} if authorization else {}
        answer = api.client.get(STATE, headers=headers)
        assert (answer.status_code, answer.json["success"]) == (401, False)
        assert "s3cret" not in answer.text
    assert api.client.post("/comfyui/workflow/execute", json={}).status_code == 401
    assert api.client.get("/health").status_code == 200
    headers = {"Origin": "http://127.0.0.1", "Access-Control-Request-Method": "GET"}
    assert api.client.options(STATE, headers=headers).status_code in (200, 204)


def test_pages_of_allowed_origins_may_use_every_place_of_an_api(make_api: Callable[..., Api]) -> None:
    api = make_api(cors_hosts="http://localhost:3000")
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for path in (STATE, "/comfyui/instances", "/v2/any/run", "/run", "/status/x", "/purge-queue"):
        answer = api.client.options(path, headers=headers)
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000", path
    for path in ("/", "/health", "/runs"):
        assert "Access-Control-Allow-Origin" not in api.client.options(path, headers=headers).headers


def test_a_body_that_is_too_large_is_refused_in_the_words_of_the_api(make_api: Callable[..., Api]) -> None:
    api = make_api(max_upload_mb=12, cors_hosts="http://localhost:3000")
    headers = {"Origin": "http://localhost:3000"}
    for path, field, limit in (
        ("/comfyui/workflow/files", "message", "larger than 12 MB"),
        ("/comfyui/instances", "message", "COMFYUI_WORKFLOW_MAX_UPLOAD_MB"),
        ("/v2/any/runsync", "error", "larger than 12 MB"),
        ("/run", "error", "larger than 10 MB"),
    ):
        size = {"CONTENT_LENGTH": str(12 * 1024 * 1024 + 1)}
        answer = api.client.post(path, headers=headers, environ_overrides=size)
        assert answer.status_code == 413
        assert limit in answer.json[field]
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


def test_the_token_lets_in(make_api: Callable[..., Api]) -> None:
    api = make_api(api_token="s3cret")
    assert api.client.get(STATE, headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert api.client.get(STATE, headers={"Authorization": "bearer  s3cret "}).status_code == 200


def test_beyond_loopback_a_token_is_needed_to_start() -> None:
    for host in ("0.0.0.0", "192.0.2.7", "::", "example.org"):
        with pytest.raises(ConfigurationError, match="API_TOKEN"):
            load_settings(host=host)
        with pytest.raises(ConfigurationError, match="at least 16 characters"):
            load_settings(host=host, api_token="a" * 15)
        load_settings(host=host, api_token="a" * 16)
    load_settings(host="::1")
    load_settings(host="::1", api_token="x")


def test_with_a_token_only_the_data_directory_is_read_and_written(
    make_api: Callable[..., Api], tmp_path: Path
) -> None:
    api = make_api(api_token="t")
    headers = {"Authorization": "Bearer t"}
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    inside = tmp_path / "data" / "w.json"
    inside.parent.mkdir(exist_ok=True)
    (tmp_path / "data" / "link.json").symlink_to(secret)
    inside.write_text("{}")

    def refusal(**body: object) -> str:
        answer = api.client.post(
            "/comfyui/workflow/execute", json={"ssh_connection": SSH, **body}, headers=headers
        )
        assert answer.status_code == 400
        return str(answer.json["message"])

    assert "not allowed" in refusal(workflow_file=str(secret))
    assert "not allowed" in refusal(workflow_file=str(tmp_path / "not there"))
    assert "not allowed" in refusal(workflow_file=str(tmp_path / "data" / ".." / "secret.json"))
    assert "not allowed" in refusal(workflow_file=str(tmp_path / "data" / "link.json"))
    assert "not allowed" in refusal(workflow=GRAPH, input_images=["/etc/passwd"])
    assert "not allowed" in refusal(workflow=GRAPH, output_dir="/tmp/elsewhere")
    assert "no nodes" in refusal(workflow_file=str(inside))
    accepted = api.client.post(
        "/comfyui/workflow/execute", json={"ssh_connection": SSH, "workflow": GRAPH}, headers=headers
    )
    run = api.journal.get(accepted.json["workflow_id"])
    assert run.request.output_dir == str((tmp_path / "data" / "outputs").resolve())


def test_the_page_loads_nothing_but_its_own(api: Api) -> None:
    page = api.client.get("/")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name in ("app.js", "style.css", "icon.svg"):
        assert f"/static/{name}" in page.text
        assert api.client.get(f"/static/{name}").status_code == 200
    assert "http" not in page.text
