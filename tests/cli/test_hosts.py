"""`hosts forget`, as the error message about a changed host key suggests it."""

import re
import shlex
from pathlib import Path

import paramiko
import pytest

from comfyui_workflow.errors import HostKeyRefused
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.cli.conftest import Command


@pytest.mark.parametrize(("host", "port"), [("gpu", 22), ("gpu", 40738), ("10.0.0.1", 22), ("::1", 2222)])
def test_the_command_in_the_error_forgets_the_old_key(
    command: Command, tmp_path: Path, host: str, port: int
) -> None:
    known_hosts = KnownHosts(tmp_path / "data" / "known_hosts")
    known_hosts.check(host, port, _new_key())
    renewed = _new_key()
    with pytest.raises(HostKeyRefused) as refusal:
        known_hosts.check(host, port, renewed)
    named = re.search(r"comfyui-workflow (hosts forget \S+)", str(refusal.value))
    assert named is not None
    assert command(*shlex.split(named[1])).exit_code == 0
    known_hosts.check(host, port, renewed)


@pytest.mark.parametrize("host", ["gpu", "gpu:notaport", "[gpu", "; rm -rf"])
def test_a_host_that_is_unknown_or_none(command: Command, host: str) -> None:
    result = command("hosts", "forget", host)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")


def _new_key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()
