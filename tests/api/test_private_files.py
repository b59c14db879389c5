"""Private files are refused as inputs and as output directories, in every API."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from werkzeug.test import TestResponse

from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH

EXECUTE = "/comfyui/workflow/execute"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path, "PNG")
    return str(path)


def text(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a key, a hidden picture, a symbolic link to each, and a picture that is not
    private."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    text(home / ".ssh" / "id_ed25519", KEY)
    picture(home / ".cache" / "a.png")
    (home / "innocent.png").symlink_to(home / ".ssh" / "id_ed25519")
    (home / "linked.png").symlink_to(home / ".cache" / "a.png")
    (home / "pictures").symlink_to(home / ".cache")
    picture(home / "mine.png")
    return home


def execute(api: Api, **fields: object) -> TestResponse:
    return api.client.post(EXECUTE, json={"ssh_connection": SSH, "workflow": GRAPH, **fields})


def refusal(api: Api, **fields: object) -> str:
    """Returns the error message, which is the same for a run, a validation, a list of runs and rows of a
    batch."""
    body = {"ssh_connection": SSH, "workflow": GRAPH, **fields}
    if "workflow_file" in fields:
        del body["workflow"]
    before = list(api.executor.started)
    answers = [
        api.client.post(EXECUTE, json=body),
        api.client.post("/comfyui/workflow/validate", json=body),
        api.client.post("/comfyui/workflow/batch", json={"runs": [body]}),
        api.client.post("/comfyui/workflow/batch", json={**body, "rows": [{}]}),
    ]
    assert [answer.status_code for answer in answers] == [400] * 4
    assert api.executor.started == before
    return str(answers[0].json["message"])


HIDDEN = ["~/.ssh/id_ed25519", "~/innocent.png", "~/linked.png", "~/pictures/a.png", "~/x/../.cache/a.png"]


@pytest.mark.parametrize("path", HIDDEN)
def test_what_is_hidden_is_no_input(api: Api, home: Path, path: str) -> None:
    assert "hidden" in refusal(api, input_images=[path])


@pytest.mark.parametrize("path", ["~/.config/autostart", "~/pictures", "~/x/.git/hooks", "/etc/cron.d"])
def test_outputs_go_nowhere_hidden(api: Api, home: Path, path: str) -> None:
    assert "not allowed" in refusal(api, output_dir=path)
    assert not (home / ".config").exists()


def test_a_hidden_workflow_is_not_read(api: Api, home: Path) -> None:
    path = text(home / ".config" / "w.json", json.dumps(GRAPH))
    assert "hidden" in refusal(api, workflow_file=path)
    answer = api.client.post("/comfyui/workflow/inspect", json={"workflow_file": path})
    assert (answer.status_code, "hidden" in answer.json["message"]) == (400, True)


def test_keys_are_no_input_by_whichever_name(make_api: Callable[..., Api], home: Path) -> None:
    api = make_api(input_kinds="any")
    for name in ("id_rsa", "server.pem", "a.key", "credentials.json"):
        assert "name of a key" in refusal(api, input_images=[picture(home / name)])
    for name in ("a.png", "notes.txt"):
        assert "private key in it" in refusal(api, input_images=[text(home / "docs" / name, f"mine:\n{KEY}")])


def test_an_input_is_what_comfyui_loads(api: Api, home: Path) -> None:
    for name, content in (("notes.png", "my diary"), ("all.csv", "iban,pin\n1,2\n"), ("empty.png", "")):
        message = refusal(api, input_images=[text(home / name, content)])
        assert "is not of a kind that ComfyUI loads" in message
        assert "COMFYUI_WORKFLOW_INPUT_KINDS" in message
        assert content not in message or not content
    assert execute(api, input_images=["~/mine.png"]).status_code == 200
    (home / "no_name_that_tells").write_bytes((home / "mine.png").read_bytes())
    assert execute(api, input_images=["~/no_name_that_tells"]).status_code == 200


def test_a_setting_lets_texts_in(make_api: Callable[..., Api], home: Path) -> None:
    api = make_api(input_kinds="image,text")
    assert execute(api, input_images=[text(home / "all.csv", "a,b\n")]).status_code == 200
    (home / "a.bin").write_bytes(bytes(100))
    assert "is not of a kind" in refusal(api, input_images=[str(home / "a.bin")])


def test_what_a_client_sends_may_be_any_text_but_no_key(api: Api, home: Path) -> None:
    def send(name: str, content: bytes) -> TestResponse:
        return api.client.post("/comfyui/workflow/files", data={"file": (io.BytesIO(content), name)})

    path = send("prompts.txt", b"a lake").json["path"]
    assert execute(api, input_images=[path]).status_code == 200
    for name, content in ((".env", b"x"), ("id_rsa", b"x"), ("tls.pem", b"x"), ("a.png", KEY.encode())):
        assert send(name, content).status_code == 400, name


def test_jobs_bring_no_keys(api: Api, home: Path) -> None:
    for name, content in (("a.png", KEY), ("id_ed25519", "x"), (".netrc", "x")):
        image = {"name": name, "image": base64.b64encode(content.encode()).decode()}
        body = {"input": {"workflow": GRAPH, "images": [image]}}
        job = api.client.post("/v2/any/runsync", json=body).json
        assert job["status"] == "FAILED", name
        assert "not accepted" in job["error"]
    assert api.executor.started == []


def test_a_hidden_data_directory_works(make_api: Callable[..., Api], home: Path) -> None:
    """The default data directory is below `~/.local`."""
    data = home / ".local" / "share" / "comfyui-workflow"
    api = make_api(data_dir=data)
    sent = api.client.post(
        "/comfyui/workflow/files", data={"file": (io.BytesIO((home / "mine.png").read_bytes()), "a.png")}
    )
    assert execute(api, input_images=[sent.json["path"]]).status_code == 200
    output = picture(data / "outputs" / "out.png")
    assert execute(api, input_images=[output], output_dir=str(data / "outputs")).status_code == 200


@pytest.mark.parametrize("settings", [{}, {"read_dirs": "{data}"}])
def test_the_records_of_the_server_are_its_own(
    make_api: Callable[..., Api], tmp_path: Path, settings: dict[str, str]
) -> None:
    data = tmp_path / "data"
    api = make_api(**{name: value.format(data=data) for name, value in settings.items()})
    for place in ("runs/live/x", "webhooks", "jobs", "secrets"):
        assert "server's own" in refusal(api, input_images=[picture(data / place / "a.png")])
        assert "server's own" in refusal(api, output_dir=str(data / place))
    assert "server's own" in refusal(api, output_dir=str(data))


def test_directories_that_the_settings_name_may_be_hidden(make_api: Callable[..., Api], home: Path) -> None:
    inputs, outputs = home / ".inputs", home / ".outputs"
    api = make_api(read_dirs=str(inputs), output_dir=str(outputs))
    sent = api.client.post("/comfyui/workflow/files", data={"file": (io.BytesIO(b"a lake"), "a.txt")})
    images = [picture(inputs / "a.png"), sent.json["path"]]
    assert execute(api, input_images=images).status_code == 200
    assert "hidden" in refusal(api, input_images=[picture(inputs / ".x" / "a.png")])
    assert "hidden" in refusal(api, output_dir=str(outputs / ".x"))
