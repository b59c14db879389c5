"""`instances …` as a user types the commands, with a running server and a sandbox."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import convert
from rich.console import Console

from comfyui_workflow.cli import main
from comfyui_workflow.cli.instance_text import instance_lines, instance_table, troubles
from comfyui_workflow.client.instance_documents import InstanceDocument
from tests.cli.conftest import Command
from tests.sandbox_process import SandboxProcess

SSH = "ssh -p 40738 root@198.53.64.194"
WAIT_S = 20.0


def document(**fields: object) -> InstanceDocument:
    entry = {
        "id": "primary",
        "name": "Primary",
        "ssh_connection": SSH,
        "comfyui_port": 18188,
        "comfyui_input_dir": "/in",
        "comfyui_output_dir": "/out",
        "enabled": True,
        "state": {"reachability": "unknown"},
    }
    return convert({**entry, **fields}, InstanceDocument)


@pytest.mark.usefixtures("server")
def test_one_is_added_listed_edited_and_removed(command: Command) -> None:
    assert "add NAME" in command("instances", "list").stderr
    added = command(
        "instances",
        "add",
        "Die Große",
        "--ssh",
        f"{SSH} -A",
        "--tag",
        "big",
        "--tag",
        "24GB",
        "--price",
        "0.4",
    )
    assert "Added Die Große (id: die-groe)" in added.stderr
    assert "-A is ignored" in added.stderr
    line = command("instances", "list").stdout.splitlines()[1]
    for part in ("Die Große", "unknown", "0.4 an hour", "big 24GB"):
        assert part in line
    edited = command(
        "instances", "edit", "die große", "--name", "Second", "--disabled", "--unset", "tag", "--json"
    )
    said = json.loads(edited.stdout)
    assert (said["name"], said["tags"], said["enabled"], said["price_per_hour"]) == ("Second", [], False, 0.4)
    assert json.loads(command("instances", "list", "--json").stdout)[0]["id"] == "die-groe"
    assert json.loads(command("instances", "show", "second", "--json").stdout)["name"] == "Second"
    shown = command("instances", "show", "second").stdout
    assert "no, only for runs that name it" in shown
    assert "Removed Second" in command("instances", "remove", "die-groe").stderr
    assert command("instances", "list").stdout == ""


@pytest.mark.usefixtures("server")
def test_a_login_is_given_unseen_and_removed(command: Command) -> None:
    command("instances", "add", "gpu", "--ssh", SSH)
    typed = ["instances", "edit", "gpu", "--comfyui-token"]
    asked = CliRunner().invoke(main, typed, input="a-secret-token\n")
    assert (asked.exit_code, "a-secret-token" in asked.output) == (0, False)
    assert "port 18188, login with a token" in command("instances", "show", "gpu").stdout
    changed = command("instances", "edit", "gpu", "--comfyui-user", "u", "--comfyui-password", "p", "--json")
    assert json.loads(changed.stdout)["comfyui_login"] == "password"
    removed = command("instances", "edit", "gpu", "--unset", "comfyui-token", "--json")
    assert json.loads(removed.stdout)["comfyui_login"] is None


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("show", ".."),
        ("show", ""),
        ("add", "any", "--ssh", SSH),
        ("add", "a"),
        ("add", "a", "--ssh", "ssh -D 1 root@host"),
        ("add", "a", "--ssh", SSH, "--tag", "a b"),
        ("edit", "nobody", "--disabled"),
        ("edit", "nobody"),
        ("remove", "no/body"),
        ("free", "nobody"),
        ("logs", "nobody", "--lines", "0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(command: Command, arguments: tuple[str, ...]) -> None:
    result = command("instances", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


@pytest.mark.usefixtures("server")
def test_one_is_asked(command: Command, sandbox: SandboxProcess) -> None:
    command("instances", "add", "gpu", "--ssh", sandbox.ssh_string)
    assert "as soon as no prompt runs" in command("instances", "free", "gpu", "--keep-models").stderr
    assert "No prompt is running" in command("instances", "interrupt", "gpu").stderr
    refused = command("instances", "interrupt", "gpu", "--prompt", "x")
    assert (refused.exit_code, "is not running there" in refused.stderr) == (2, True)
    assert command("instances", "logs", "gpu").exit_code == 0
    assert "Connecting to gpu" in command("instances", "connect", "gpu").stderr
    deadline_s = time.monotonic() + WAIT_S
    while "ready" not in (shown := command("instances", "show", "gpu").stdout):
        assert time.monotonic() < deadline_s, shown
        time.sleep(0.02)
    for part in ("ComfyUI 0.", "GB free", "idle", " ms", "SHA256:"):
        assert part in shown
    assert "is disconnected as soon as" in command("instances", "disconnect", "gpu").stderr
    unshown = command("instances", "accept-host-key", "gpu", "SHA256:x")
    assert (unshown.exit_code != 0, "has not shown a new host key" in unshown.stderr) == (True, True)
    forgotten = command("instances", "forget-host-key", "gpu").stderr
    assert "Forgot SHA256:" in forgotten
    assert "No host key was known" in command("instances", "forget-host-key", "gpu").stderr


@pytest.mark.usefixtures("server")
def test_one_that_cannot_be_reached_is_told_from_a_wrong_command(
    command: Command, sandbox: SandboxProcess
) -> None:
    command("instances", "add", "dead", "--ssh", sandbox.ssh_string.replace(str(sandbox.ssh_port), "1"))
    result = command("instances", "logs", "dead")
    assert (result.exit_code, result.stdout) == (4, "")


def test_without_a_server_they_say_how_to_get_one(command: Command) -> None:
    result = command("instances", "list")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "comfyui-workflow serve" in result.stderr


@pytest.mark.usefixtures("server")
def test_trouble_with_the_file_is_told(command: Command, tmp_path: Path) -> None:
    command("instances", "add", "a", "--ssh", SSH)
    (tmp_path / "server" / "instances.json").write_text("{")
    deadline_s = time.monotonic() + WAIT_S
    while "instances.json cannot be read" not in (listed := command("instances", "list")).stderr:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert "a " in listed.stdout
    assert "correct the file first" in command("instances", "remove", "a").stderr


STATE = {
    "reachability": "ready",
    "trouble": "cut \x1b[2J",
    "comfyui_version": "0.3.64",
    "devices": [{"name": "cuda:0", "type": "cuda", "vram_total": 25769803776, "vram_free": 2147483648}],
    "prompts": {"running": ["a"], "pending": ["b", "c"], "ours": [], "others": 3},
    "round_trip_s": 0.0815,
    "idle_since": "2026-01-01T00:00:00Z",
    "idle_s": 3725.0,
}


def test_what_is_known_is_said_in_words_and_moves_no_cursor() -> None:
    known = document(name="[red]Big[/red]", tags=["a"], local_port=8188, state=STATE)
    said = "\n".join(instance_lines(known))
    for part in ("2.0 of 24.0 GB free", "1 running, 2 waiting", "82 ms", "1:02:05", "127.0.0.1:8188"):
        assert part in said
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(instance_table([known, document(enabled=False)]))
    table = capture.get()
    for part in ("[red]Big[/red]", "ready", "unknown, disabled", "2.0 of 24.0 GB"):
        assert part in table
    assert list(troubles([known, document()])) == ["[red]Big[/red]: cut  [2J"]
    assert "\x1b" not in said + table


def test_what_is_not_known_is_not_said() -> None:
    said = [line.partition(":")[0] for line in instance_lines(document())]
    assert said == ["name", "id", "ssh", "ComfyUI", "directories", "for any", "state"]
