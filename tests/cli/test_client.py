"""Error messages for every response of a server, or of another program at its address."""

import pytest

from comfyui_workflow.client.errors import RequestRefused, ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import InvalidRequest
from tests.cli.canned_server import CannedServer
from tests.cli.conftest import Command
from tests.cli.documents import RUN_ID, raw_progress


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>router</html>"),
        (200, b"\xff\xfe"),
        (200, []),
        (200, {"success": True}),
        (200, {"success": True, "progress": raw_progress(status="dancing")}),
        (200, {"success": True, "progress": [1]}),
        (302, b""),
        (502, b"bad gateway"),
    ],
)
def test_what_is_no_answer_of_ours_is_unreachable(canned: CannedServer, answer: tuple[int, object]) -> None:
    canned.will_answer(answer)
    with WorkflowServer(canned.url) as client, pytest.raises(ServerUnreachable):
        client.progress(RUN_ID)


def test_another_program_at_the_address_is_not_taken_for_a_server(
    canned: CannedServer, command: Command
) -> None:
    canned.will_answer((200, {"status": "ok"}))
    result = command("list", "--server", canned.url)
    assert result.exit_code == 4
    assert "not a comfyui-workflow server" in result.stderr


def test_a_refusal_is_told_in_the_words_of_the_server(canned: CannedServer) -> None:
    canned.will_answer((400, {"success": False, "message": "No.", "code": "file_refused"}))
    with WorkflowServer(canned.url) as client, pytest.raises(RequestRefused, match=r"No\.") as refusal:
        client.execute(workflow={}, ssh_connection="gpu")
    assert (refusal.value.code, refusal.value.status) == ("file_refused", 400)


def test_an_internal_error_of_the_server_is_no_refusal(canned: CannedServer, command: Command) -> None:
    canned.will_answer((200, {"unfinished_runs": 0}), (507, {"success": False, "message": "No space"}))
    result = command("cancel", RUN_ID, "--server", canned.url)
    assert (result.exit_code, result.stderr) == (1, "Error: No space\n")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_does_not_reach_the_instance_says_so(
    canned: CannedServer, command: Command, status: int
) -> None:
    refusal = {"success": False, "message": "No key is accepted", "code": "authentication_failed"}
    canned.will_answer((200, {"unfinished_runs": 0}), (status, refusal))
    result = command("cancel", RUN_ID, "--server", canned.url)
    assert (result.exit_code, result.stderr) == (4, "Error: No key is accepted\n")


def test_the_token_goes_with_every_request(
    canned: CannedServer, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_WORKFLOW_API_TOKEN", "secret")
    canned.will_answer((200, {"unfinished_runs": 0, "workflows": []}))
    assert command("list", "--server", canned.url).exit_code == 0
    assert {headers["Authorization"] for _, _, headers, _ in canned.requests} == {"Bearer secret"}


@pytest.mark.parametrize("url", ["ftp://gpu", "http://", "http://gpu:port", "//", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        WorkflowServer(url)


def test_control_characters_of_a_server_do_not_reach_the_terminal(
    canned: CannedServer, command: Command
) -> None:
    run = raw_progress(status="completed", workflow_name="a\x1b[2Jlake\nb")
    canned.will_answer((200, {"unfinished_runs": 0, "workflows": [run]}))
    result = command("list", "--server", canned.url)
    assert "a [2Jlake b" in result.stdout
    assert "\x1b" not in result.stdout
