"""Node packs on a machine behind a real sshd, from a local registry and a local git server; the restart."""

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ProvisionFailed, Stopped
from comfyui_workflow.provisioning.packs import PackOffers, PackProvisioner, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.model import GraphRequest, Workflow
from tests.provisioning.file_server import FileServer, ServedFile, wait_until
from tests.provisioning.machine import Machine, git, serve_repository

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def commits(web: FileServer, tmp_path: Path) -> list[str]:
    """A registry that knows the pack `fancy`, and its repository with two versions; their commits."""
    return serve_repository(web, tmp_path)


def request(class_type: str = "Fancy", **properties: Any) -> GraphRequest:
    node = {"id": 1, "type": class_type, "properties": {"cnr_id": "fancy", **properties}}
    return GraphRequest(workflow=Workflow(graph={}, editor_file={"nodes": [node], "links": []}))


Provide = Callable[..., list[str]]


@pytest.fixture
def provide(session: ComfyUISession, web: FileServer) -> Provide:
    def run(asked: GraphRequest, *, packs: tuple[str, ...] = ("registry",), **more: Any) -> list[str]:
        rules = PackRules(packs=packs, registry=web.origin, downloads=DownloadRules(hosts=(web.origin,)))
        offers = PackOffers(rules, GuardedClient(may_reach_private=False))
        given = {"stop": CancelToken(), "say": lambda _: None, **more}
        return PackProvisioner(offers).provide(session, asked, **given)

    return run


@pytest.mark.parametrize("version", ["1.0.0", "commit"])
def test_a_pack_is_installed_at_its_version_and_comfyui_restarted(
    provide: Provide, session: ComfyUISession, machine: Machine, commits: list[str], version: str
) -> None:
    (before,) = machine.pids()
    done = provide(request(ver=commits[0] if version == "commit" else version))
    assert "Fancy" in session.definitions()
    assert "Version1" in session.definitions()
    assert git("rev-parse", "HEAD", cwd=machine.packs / "fancy") == commits[0]
    assert f"install --disable-pip-version-check --no-input -r {machine.packs}/fancy/requirements.txt" in (
        machine.pip_log.read_text()
    )
    (after,) = machine.pids()
    assert after != before
    environment = Path(f"/proc/{after}/environ").read_bytes()
    assert b"ITS_OWN=1" in environment
    assert b"SSH_CONNECTION" not in environment
    assert done[0] == "Installed the node pack fancy (v1.0.0)"
    assert "started again with its own command line" in done[1]
    assert provide(request()) == []


def test_comfyui_is_not_restarted_while_prompts_run(
    provide: Provide, machine: Machine, commits: list[str]
) -> None:
    (machine.root / "queued").touch()
    stop, said = CancelToken(), []

    def say(message: str) -> None:
        said.append(message)
        if message.startswith("Waiting until the other prompts"):
            stop.cancel()

    before = machine.pids()
    with pytest.raises(Stopped):
        provide(request(), stop=stop, say=say)
    assert machine.pids() == before
    (machine.root / "queued").unlink()
    assert provide(request())[0].startswith("Installed the node pack fancy (v2.0.0)")


def test_a_prompt_that_arrives_before_the_restart_is_not_lost(
    provide: Provide, machine: Machine, commits: list[str]
) -> None:
    """Somebody else submits one after our look at the queue. Our own runs submit none meanwhile."""
    (before,) = machine.pids()
    said, is_alone = list[tuple[str, bool]](), threading.Event()

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        is_alone.set()
        yield
        is_alone.clear()

    def say(message: str) -> None:
        if message.startswith("Restarting") and len(said) < 2:
            (machine.root / "queued").touch()
        if message.startswith("Waiting until the other prompts"):
            assert machine.pids() == [before]
            (machine.root / "queued").unlink()
        said.append((message.split(maxsplit=1)[0], is_alone.is_set()))

    provide(request(), say=say, alone=alone)
    assert said == [("Installing", False), ("Restarting", True), ("Waiting", True), ("Restarting", True)]
    assert machine.pids() not in ([], [before])


def test_two_installations_are_one_after_the_other(
    provide: Provide, machine: Machine, commits: list[str]
) -> None:
    said, done = list[str](), list[str]()
    other = os.open(machine.packs, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    second = threading.Thread(target=lambda: done.extend(provide(request(), say=said.append)))
    second.start()
    wait_until(lambda: any("another installation" in each for each in said) or not second.is_alive(), 60)
    assert list(machine.packs.iterdir()) == []
    os.close(other)
    second.join()
    assert done[0].startswith("Installed the node pack fancy")


def test_a_restart_goes_on_when_the_connection_ends(
    provide: Provide, machine: Machine, commits: list[str]
) -> None:
    stop = CancelToken()
    (before,) = machine.pids()

    def stop_when_it_is_gone() -> None:
        wait_until(lambda: before not in machine.pids(), 60)
        stop.cancel()

    watcher = threading.Thread(target=stop_when_it_is_gone)
    watcher.start()
    with pytest.raises(Stopped):
        provide(request(), stop=stop)
    watcher.join()
    wait_until(lambda: machine.pids() != [])


def test_a_pack_without_the_class_is_an_error(provide: Provide, commits: list[str]) -> None:
    with pytest.raises(ProvisionFailed, match="ComfyUI still has no class Other"):
        provide(request("Other"))


REFUSED = [
    (request(), (), "fancy is not in COMFYUI_WORKFLOW_PROVISION_PACKS"),
    (request(cnr_id="unknown"), ("any",), "answers with status 404"),
    (request(cnr_id=None, aux_id="me/fancy"), ("registry",), "fancy is not in"),
    (request(cnr_id=None, aux_id="me/fancy"), ("me/fancy",), "github.com is not in"),
    (request(cnr_id="elsewhere"), ("elsewhere",), "is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_a_pack_that_is_not_allowed_is_not_installed(
    provide: Provide,
    web: FileServer,
    machine: Machine,
    refused: tuple[GraphRequest, tuple[str, ...], str],
) -> None:
    asked, packs, reason = refused
    web.files["nodes/elsewhere"] = ServedFile(content=b'{"repository": "https://example.com/x"}')
    before = machine.pids()
    with pytest.raises(ProvisionFailed, match=reason):
        provide(asked, packs=packs)
    assert (machine.pids(), list(machine.packs.iterdir())) == (before, [])


def test_a_repository_that_cannot_be_cloned_is_an_error(
    provide: Provide, web: FileServer, machine: Machine, commits: list[str]
) -> None:
    web.files["nodes/fancy"] = ServedFile(content=json.dumps({"repository": web.url("no.git")}).encode())
    with pytest.raises(ProvisionFailed, match="fancy cannot be installed: git ended with status 128"):
        provide(request())
    assert [each.name for each in machine.packs.iterdir() if not each.name.endswith(".disabled")] == []
