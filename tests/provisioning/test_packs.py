"""Node packs on a machine behind a real sshd, from a local registry and a local git server; the restart."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.app import open_session
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIError, ProvisionFailed, Stopped
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.provisioning.packs import PackOffers, PackProvisioner, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.settings import Settings
from comfyui_workflow.workflows.model import GraphRequest, Workflow
from tests.provisioning import fake_comfyui
from tests.provisioning.file_server import FileServer, ServedFile, wait_until
from tests.sandbox_process import _claimed_port
from tests.sshd import Sshd

pytestmark = pytest.mark.timeout(200)
PYTHON = (
    '#!/bin/bash\n[ "$1 $2" = "-m pip" ] && {{ echo "$@" >> {log}; exit 0; }}\nexec -a "$0" {real} "$@"\n'
)


class Machine:
    """A fake ComfyUI with a Python of its own, started as from a terminal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packs = root / "custom_nodes"
        self.pip_log = root / "pip.log"
        self.packs.mkdir(parents=True)
        (root / "main.py").write_text(Path(fake_comfyui.__file__).read_text())
        python = root / "bin" / "python"
        python.parent.mkdir()
        python.write_text(PYTHON.format(log=self.pip_log, real=sys.executable))
        python.chmod(0o755)
        self._claim = _claimed_port()
        self.port = self._claim.getsockname()[1]

    def start(self) -> None:
        command = ["bin/python", "main.py", "--port", str(self.port), "--base", str(self.root)]
        environment = {**os.environ, "ITS_OWN": "1"}
        self.process = subprocess.Popen(command, cwd=self.root, env=environment, start_new_session=True)
        threading.Thread(target=self.process.wait, daemon=True).start()  # no zombie, as under a shell

    def pids(self) -> list[int]:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = file.read_bytes().split(b"\0")
                if b"main.py" in words and str(self.root).encode() in words:
                    found.append(int(file.parent.name))
        return found

    def close(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self._claim.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "ComfyUI")
    machine.start()
    yield machine
    machine.close()


@pytest.fixture
def session(machine: Machine, sshd: Sshd, tmp_path: Path) -> Iterator[ComfyUISession]:
    (tmp_path / "data").mkdir()
    settings = Settings(data_dir=tmp_path / "data", ssh_config=Path("/dev/null"))
    key = InstanceKey(address=parse_ssh_address(sshd.ssh_string()), comfyui_port=machine.port, is_exact=True)
    opened = open_session(key, settings)

    def answers() -> bool:
        try:
            return opened.reach()
        except ComfyUIError:
            return False

    wait_until(answers)
    yield opened
    opened.close()


def git(*words: str, cwd: Path) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *author, *words], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def commits(web: FileServer, tmp_path: Path) -> list[str]:
    """A registry that knows the pack `fancy`, and its repository with two versions; their commits."""
    work = tmp_path / "work"
    work.mkdir()
    git("init", "-q", cwd=work)
    made = []
    for version in ("1.0.0", "2.0.0"):
        (work / "classes").write_text(f"Fancy Version{version[0]}")
        (work / "requirements.txt").write_text("something==1\n")
        git("add", ".", cwd=work)
        git("commit", "-q", "-m", version, cwd=work)
        git("tag", f"v{version}", cwd=work)
        made.append(git("rev-parse", "HEAD", cwd=work))
    bare = tmp_path / "fancy.git"
    git("clone", "-q", "--bare", str(work), str(bare), cwd=tmp_path)
    git("update-server-info", cwd=bare)
    for file in (each for each in bare.rglob("*") if each.is_file()):
        web.files[f"fancy.git/{file.relative_to(bare)}"] = ServedFile(content=file.read_bytes(), etag=None)
    web.files["fancy.git/info/refs?service=git-upload-pack"] = web.files["fancy.git/info/refs"]
    web.files["nodes/fancy"] = ServedFile(
        content=json.dumps({"repository": web.url("fancy.git")}).encode(), etag=None
    )
    return made


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
