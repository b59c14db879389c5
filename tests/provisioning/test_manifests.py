"""Manifests applied to a machine behind a real sshd: from a local registry, git server and file server."""

import hashlib
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, ProvisionFailed
from comfyui_workflow.provisioning import packs_program
from comfyui_workflow.provisioning.manifest import read_manifest
from comfyui_workflow.provisioning.manifest_plan import Plan
from comfyui_workflow.provisioning.manifests import Application, ManifestProvisioner
from comfyui_workflow.provisioning.packs import PackOffers, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.services.provisions import Provision
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.stores.files.provisions import FileProvisionStore
from tests.provisioning.file_server import FileServer, ServedFile
from tests.provisioning.machine import Machine, git, serve_repository
from tests.sshd import Sshd

pytestmark = pytest.mark.timeout(300)
CONTENT = os.urandom(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Fleet:
    """Applies manifests to one machine, as the service does it."""

    def __init__(self, session: ComfyUISession, web: FileServer, directory: Path) -> None:
        self.session = session
        self.web = web
        self.store = FileProvisionStore(directory)
        host = web.origin.partition("://")[2]
        self.packs: tuple[str, ...] = ("registry", f"{host}/fancy", f"{host}/group/fancy")
        self.last = Provision("m", self.store, {})
        self.closed: list[bool] = []

    def application(self, given: object) -> Application:
        self.last = Provision("m", self.store, self.store.state("m") or {})

        @contextmanager
        def alone() -> Any:
            self.closed.append(True)
            yield

        return Application(
            session=self.session,
            manifest=read_manifest(given),
            stop=CancelToken(),
            progress=self.last,
            alone=alone,
        )

    @property
    def provisioner(self) -> ManifestProvisioner:
        rules = PackRules(
            packs=self.packs, registry=self.web.origin, downloads=DownloadRules(hosts=(self.web.origin,))
        )
        return ManifestProvisioner(rules, PackOffers(rules, GuardedClient(may_reach_private=False)))

    def plan(self, given: object) -> Plan:
        return self.provisioner.plan(self.application(given))

    def actions(self, given: object) -> list[str]:
        return [each.action.value for each in self.plan(given).items]

    def apply(self, given: object) -> list[str]:
        self.provisioner.apply(self.application(given))
        return self.log

    @property
    def log(self) -> list[str]:
        return [each["text"] for each in self.last.document()["log"]]

    def lock(self, given: object) -> dict[str, Any]:
        found = self.provisioner.lock(self.application(given))
        self.store.save_lock("m", found)
        return found


@pytest.fixture
def fleet(session: ComfyUISession, web: FileServer, tmp_path: Path) -> Fleet:
    return Fleet(session, web, tmp_path / "provisions")


@pytest.fixture
def commits(web: FileServer, tmp_path: Path) -> list[str]:
    return serve_repository(web, tmp_path)


def whole(web: FileServer) -> dict[str, Any]:
    web.files["m"] = ServedFile(content=CONTENT)
    web.files["later"] = ServedFile(content=CONTENT[::-1])
    return {
        "pip": ["numpi==2.1.0"],
        "custom_nodes": ["fancy@1.0.0"],
        "models": {
            "before_start": [
                {"url": web.url("m"), "local_path": "/opt/ComfyUI/models/checkpoints/new.safetensors"}
            ],
            "after_start": [{"url": web.url("later"), "local_path": "loras/sub/later.safetensors"}],
        },
    }


def test_a_machine_gets_everything_once(
    fleet: Fleet, machine: Machine, web: FileServer, commits: list[str]
) -> None:
    given = whole(web)
    assert fleet.actions(given) == ["install", "install", "download", "download"]
    assert fleet.plan(given).restarts
    assert (list(machine.packs.iterdir()), list(machine.models.iterdir())) == ([], [])
    before = machine.pids()
    fleet.apply(given)
    assert machine.pids() != before
    assert "Fancy" in fleet.session.definitions()
    assert git("rev-parse", "HEAD", cwd=machine.packs / "fancy") == commits[0]
    assert (machine.models / "checkpoints" / "new.safetensors").read_bytes() == CONTENT
    assert (machine.models / "loras" / "sub" / "later.safetensors").exists()
    lock = fleet.lock(given)
    assert lock["pip"] == {"numpi==2.1.0": "2.1.0"}
    assert lock["custom_nodes"][0]["commit"] == commits[0]
    assert lock["custom_nodes"][0]["url"] == web.url("fancy.git")
    assert (lock["models"][0]["size"], lock["models"][0]["sha256"]) == (len(CONTENT), SHA256)

    now, asked = machine.pids(), len(web.asked)
    assert fleet.actions(given) == ["none"] * 4
    assert fleet.apply(given) == ["Everything is there: nothing is to be done"]
    assert machine.pids() == now
    assert [each.path for each in web.asked[asked:] if each.path != "/nodes/fancy"] == []
    assert fleet.closed == [True]


def test_models_alone_do_not_restart_comfyui(fleet: Fleet, machine: Machine, web: FileServer) -> None:
    given = {"models": whole(web)["models"]}
    before = machine.pids()
    assert not fleet.plan(given).restarts
    fleet.apply(given)
    assert machine.pids() == before
    assert fleet.actions(given) == ["none", "none"]


def test_nothing_is_changed_if_a_part_is_refused(
    fleet: Fleet, machine: Machine, web: FileServer, commits: list[str]
) -> None:
    fleet.packs = ("registry",)
    elsewhere = {"url": "https://example.com/x.safetensors", "local_path": "loras/x.safetensors"}
    given = {
        "pip": ["numpi==2.1.0", "x @ https://example.com/x.whl"],
        "custom_nodes": [web.url("fancy.git"), "https://github.com/me/mine"],
        "models": {
            "before_start": [
                elsewhere,
                {"url": web.url("m"), "local_path": "/elsewhere/x.safetensors"},
                {"url": web.url("m"), "local_path": "custom_nodes/x.safetensors"},
                {"url": web.url("m"), "local_path": "loras/x.py"},
            ]
        },
    }
    reasons = [each.reason for each in fleet.plan(given).refused]
    host = "example.com is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"
    assert reasons[0] == host
    assert "/fancy is not in COMFYUI_WORKFLOW_PROVISION_PACKS" in str(reasons[1])
    assert reasons[2] == "me/mine is not in COMFYUI_WORKFLOW_PROVISION_PACKS"
    assert reasons[3] == host
    assert "/elsewhere/x.safetensors is in no folder of models" in str(reasons[4])
    assert "custom_nodes is no folder for models" in str(reasons[5])
    assert "its name is not that of a model file" in str(reasons[6])
    with pytest.raises(ProvisionFailed, match="Nothing was changed"):
        fleet.apply(given)
    assert not machine.pip_log.exists()
    assert list(machine.packs.iterdir()) == []


def test_a_pack_moves_to_the_version_that_is_wanted(
    fleet: Fleet, machine: Machine, web: FileServer, commits: list[str]
) -> None:
    target = machine.packs / "fancy"
    fleet.apply({"custom_nodes": [web.url("fancy.git")]})
    assert git("rev-parse", "HEAD", cwd=target) == commits[1]
    for ref in ("tree/feature/old/dir", f"commit/{commits[0][:12]}", "releases/tag/v1.0.0"):
        git("checkout", "-q", commits[1], cwd=target)
        given = {"custom_nodes": [f"{web.url('fancy.git')}/{ref}"]}
        assert fleet.actions(given) == ["update"]
        fleet.apply(given)
        assert git("rev-parse", "HEAD", cwd=target) == commits[0]
        assert fleet.actions(given) == ["none"]
    (target / "classes").write_text("Changed")
    with pytest.raises(ProvisionFailed, match="its files were changed on the machine"):
        fleet.apply({"custom_nodes": [f"{web.url('fancy.git')}@v2.0.0"]})
    with pytest.raises(ProvisionFailed, match="another repository"):
        fleet.apply({"custom_nodes": [web.url("group/fancy.git")]})


def test_a_version_that_the_repository_does_not_have_is_an_error(
    fleet: Fleet, machine: Machine, web: FileServer, commits: list[str]
) -> None:
    before = machine.pids()
    with pytest.raises(ProvisionFailed, match="fancy cannot be installed: the repository has no nothing"):
        fleet.apply({"custom_nodes": [f"{web.url('fancy.git')}/tree/nothing"]})
    assert [each.name for each in machine.packs.iterdir() if not each.name.endswith(".disabled")] == []
    assert machine.pids() == before


def test_requirements_of_pip_that_are_met_are_not_installed_again(fleet: Fleet, machine: Machine) -> None:
    fleet.apply({"pip": ["Num_Pi==2.1.0"]})
    for line in ("num-pi", "num.pi>=2,<3", "num-pi==2.1.0; python_version>'3'", "x; python_version<'3'"):
        assert fleet.actions({"pip": [line]}) == ["none"], line
    assert fleet.actions({"pip": ["num-pi>=3"]}) == ["install"]
    with pytest.raises(ProvisionFailed, match=r"The packages of pip cannot be installed: .*No matching"):
        fleet.apply({"pip": ["impossible"]})


def test_a_restart_that_was_cut_off_is_made_up_for(
    fleet: Fleet, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"pip": ["numpi==2.1.0"]}

    def cut(*_: object) -> str:
        raise ConnectionFailed("cut")

    before = machine.pids()
    with monkeypatch.context() as patched:
        patched.setattr("comfyui_workflow.provisioning.manifests.restart_comfyui", cut)
        with pytest.raises(ConnectionFailed):
            fleet.apply(given)
    assert machine.pids() == before
    assert fleet.actions(given) == ["none"]
    fleet.apply(given)
    assert machine.pids() != before
    now = machine.pids()
    fleet.apply(given)
    assert machine.pids() == now


def test_an_installation_that_was_cut_off_continues(
    fleet: Fleet, machine: Machine, web: FileServer, commits: list[str]
) -> None:
    """The pack is in its place, but its requirements are not installed."""
    given, before = {"custom_nodes": ["fancy@1.0.0"]}, machine.pids()
    (machine.packages / "no index").touch()
    with pytest.raises(ProvisionFailed, match=r"fancy cannot be installed: .*No matching"):
        fleet.apply(given)
    assert (machine.packs / "fancy").exists()
    assert machine.pids() == before
    (machine.packages / "no index").unlink()
    assert fleet.actions(given) == ["update"]
    fleet.apply(given)
    assert list(machine.packages.glob("something-1.dist-info"))
    assert machine.pids() != before
    assert fleet.actions(given) == ["none"]


def test_a_model_with_other_content_is_refused(fleet: Fleet, machine: Machine, web: FileServer) -> None:
    given = {"models": {"before_start": [dict(whole(web)["models"]["before_start"][0], sha256=SHA256)]}}
    place = machine.models / "checkpoints" / "new.safetensors"
    place.parent.mkdir()
    place.write_bytes(CONTENT[::-1])
    with pytest.raises(ProvisionFailed, match="other content"):
        fleet.apply(given)
    place.unlink()
    fleet.apply(given)
    assert fleet.actions(given) == ["none"]


def test_secrets_are_in_no_log_and_no_process_list(fleet: Fleet, machine: Machine, web: FileServer) -> None:
    pause = threading.Event()
    web.files["m?token=hush"] = ServedFile(content=CONTENT, pause=pause)
    model = {"url": web.url("m?token=hush"), "local_path": "loras/x.safetensors"}
    applying = threading.Thread(target=fleet.apply, args=({"models": {"before_start": [model]}},))
    applying.start()
    try:
        while not web.gets("m?token=hush") and applying.is_alive():
            applying.join(0.05)
        seen = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    finally:
        pause.set()
        applying.join(60)
    assert (machine.models / "loras" / "x.safetensors").exists()
    assert not any(b"hush" in each for each in seen)
    assert "hush" not in str(fleet.last.document()) + str(fleet.lock({"models": {"before_start": [model]}}))


FAKE_APT = """#!/bin/bash
echo "$(basename $0) $@" >> {log}
case "$(basename $0) $1" in
"dpkg-query "*) for p; do :; done; [ -e {there}/$p ] && echo "installed 1.0" || exit 1;;
"apt-get -s") for p; do :; done; [ $p = "x.+" ] && echo "selecting 'y' for regex 'x.+'"; echo "Inst $p";;
"apt-get install") for p; do :; done; touch {there}/$p;;
esac
"""


@pytest.fixture
def apt(tmp_path: Path, sshd: Sshd) -> Path:
    """The log of a fake apt, which is in the path of the machine."""
    log, there, programs = tmp_path / "apt.log", tmp_path / "there", tmp_path / "home" / "bin"
    there.mkdir()
    programs.mkdir()
    for name in ("apt-get", "dpkg-query", "dpkg"):
        program = programs / name
        program.write_text(FAKE_APT.format(log=log, there=there))
        program.chmod(0o755)
    return log


@pytest.mark.skipif(os.geteuid() != 0, reason="apt needs root")
def test_packages_of_apt(apt: Path, fleet: Fleet, machine: Machine) -> None:
    before = machine.pids()
    fleet.apply({"apt": ["ffmpeg"]})
    assert "apt-get install -y -- ffmpeg" in apt.read_text()
    assert fleet.apply({"apt": ["ffmpeg"]}) == ["Everything is there: nothing is to be done"]
    assert machine.pids() == before
    with pytest.raises(ProvisionFailed, match=r"there is no package x\.\+"):
        fleet.apply({"apt": ["x.+"]})


def test_packages_of_apt_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_program.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packs_program.shutil, "which", lambda name: None if name == "sudo" else name)
    with pytest.raises(packs_program.Failed, match="is not root and has no sudo without a password"):
        packs_program.install_apt({"packages": ["ffmpeg"]})
    monkeypatch.setattr(packs_program.shutil, "which", lambda _: None)
    with pytest.raises(packs_program.Failed, match="there is no apt-get on the machine"):
        packs_program.install_apt({"packages": ["ffmpeg"]})


def test_a_pack_that_is_there_without_git_is_left_alone(
    fleet: Fleet, machine: Machine, commits: list[str]
) -> None:
    target = machine.packs / "Fancy"
    target.mkdir()
    (target / "pyproject.toml").write_text('[project]\nname = "fancy"\nversion = "1.0.0"\n')
    assert fleet.actions({"custom_nodes": ["fancy"]}) == ["none"]
    assert fleet.actions({"custom_nodes": ["fancy@1.0.0"]}) == ["none"]
    plan = fleet.plan({"custom_nodes": ["fancy@2.0.0"]})
    assert plan.refused[0].reason == "it is there in another version, and not from git; remove it first"
    shutil.rmtree(target)
