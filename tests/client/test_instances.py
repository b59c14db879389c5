"""Named instances from Python, with a running server and a sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.client import (
    InvalidRequest,
    RequestRefused,
    ServerUnreachable,
    WorkflowServer,
)
from comfyui_workflow.settings import load_settings
from tests.cli.canned_server import CannedServer
from tests.sandbox_process import SandboxProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WorkflowServer]:
    settings = load_settings(port=0, data_dir=tmp_path / "server", state_file=tmp_path / "state.json")
    with serve_in_this_process(settings) as url, WorkflowServer(url) as client:
        yield client


def test_the_list_is_kept(server: WorkflowServer) -> None:
    added = server.instances.add(name="Große #1", ssh_connection="root@192.0.2.1 -A", tags=["big"])
    assert (added.id, added.tags, added.state.reachability) == ("groe-1", ("big",), "unknown")
    assert "-A is ignored" in added.notices[0]
    changed = server.instances.change("große #1", price_per_hour=0.4, tags=None)
    assert (changed.price_per_hour, changed.tags, changed.unfinished_runs) == (0.4, (), 0)
    assert server.instances.get("groe-1").raw["price_per_hour"] == 0.4
    assert [each.raw["id"] for each in server.instances.all().instances] == ["groe-1"]
    assert server.instances.remove("groe-1").unfinished_runs == 0
    with pytest.raises(RequestRefused) as refusal:
        server.instances.get("groe-1")
    assert (refusal.value.status, refusal.value.code) == (404, "instance_not_found")


def test_one_is_asked(server: WorkflowServer, sandbox: SandboxProcess) -> None:
    server.instances.add(name="gpu", ssh_connection=sandbox.ssh_string)
    assert server.instances.system_stats("gpu")["system"]["comfyui_version"]
    queue = server.instances.queue("gpu")
    assert (queue.running, queue.pending) == ((), ())
    assert server.instances.interrupt("gpu").interrupted == ()
    assert "gpu" in server.instances.free("gpu")
    assert isinstance(server.instances.logs("gpu", lines=3), list)
    assert "gpu" in server.instances.connect("gpu")
    assert "gpu" in server.instances.disconnect("gpu")
    forgotten = server.instances.forget_host_key("gpu")
    assert forgotten is not None
    assert forgotten.startswith("SHA256:")
    with pytest.raises(RequestRefused, match="has not shown a new host key"):
        server.instances.accept_host_key("gpu", forgotten)


@pytest.mark.parametrize("name", ["", "..", " . "])
def test_what_would_lead_to_another_route_is_not_asked(name: str) -> None:
    with pytest.raises(InvalidRequest):
        WorkflowServer("http://127.0.0.1:1").instances.remove(name)


@pytest.mark.parametrize("answer", [{}, {"instances": 7}, {"instances": [{"id": 1}]}, {"instance": []}])
def test_what_no_server_of_ours_says_is_told(answer: object) -> None:
    with CannedServer() as canned, WorkflowServer(canned.url) as client:
        canned.will_answer((200, answer))
        for ask in (client.instances.all, lambda: client.instances.get("a")):
            with pytest.raises(ServerUnreachable, match="not a comfyui-workflow server"):
                ask()
