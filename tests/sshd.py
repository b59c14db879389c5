"""A real OpenSSH server of the test's own: config, keys and port under a directory, nothing system-wide.

    with Sshd(tmp_path / "sshd") as server:
        server.ssh_string(comfyui_port=8188)   # what a user would paste, -i with the accepted key included
        server.kill_connections()              # cut: every open connection dies, new ones are welcome
        server.freeze(), server.thaw()         # the peers stop answering; TCP still acknowledges
        server.change_host_key()               # another machine at the same address

`require_sshd()` skips the test where there is no sshd, and fails it instead when CI=true.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

from tests.lifeline import Lifeline

SSHD = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
START_LIMIT_S = 10.0


def require_sshd() -> None:
    if os.access(SSHD, os.X_OK) and shutil.which("ssh-keygen"):
        return
    reason = f"no {SSHD} here: tests/install_system_packages.sh installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Sshd:
    """`key_file` is accepted; `host`, `port` and `user` say where and who."""

    host = "127.0.0.1"

    def __init__(self, directory: Path, *, max_startups: str = "10:30:100") -> None:
        require_sshd()
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.user = getpass.getuser()
        self.key_file = self.make_key("client_key")
        self.host_key_file = self.make_key("host_key")
        self._max_startups = max_startups
        self._more_config: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts listening; on the same port as before when it ran already."""
        for _ in range(5):
            self.port = self.port or _free_port()
            if self._try_to_start():
                return
            self.port = 0
        raise RuntimeError(f"sshd does not start:\n{self.log()}")

    def stop(self) -> None:
        """Stops listening and ends every connection. Idempotent."""
        self.kill_connections()
        self.stop_listening()
        self.kill_connections()

    def stop_listening(self) -> None:
        """New connections are refused; those that are open live on until `kill_connections`."""
        if self._process is None:
            return
        self._orphans = self._peers()
        self._end_process()

    def kill_connections(self) -> None:
        self._signal_peers(signal.SIGKILL)

    def freeze(self) -> None:
        """Open connections stop answering, and stay open. New ones are still welcome."""
        self._signal_peers(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_peers(signal.SIGCONT)

    def freeze_storage(self) -> None:
        """The servers of files on open connections stop answering; all else goes on."""
        for pid in self._children_of_listener(deep=True):
            with contextlib.suppress(OSError):
                if b"internal-sftp" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGSTOP)

    def freeze_listener(self) -> None:
        """New connections are accepted by the kernel and hear nothing. `stop` ends this too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw_listener(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def change_host_key(self) -> None:
        """From now on another machine answers at this address."""
        self.stop()
        for file in self.directory.glob("host_key*"):
            file.unlink()
        self.host_key_file = self.make_key("host_key")
        self.start()

    def ssh_string(self, *, comfyui_port: int | None = None, key_file: Path | None = None) -> str:
        forward = f" -L 8188:localhost:{comfyui_port}" if comfyui_port else ""
        return f"ssh -p {self.port} {self.user}@{self.host} -i {key_file or self.key_file}{forward}"

    def make_key(self, name: str, *, key_type: str = "ed25519", passphrase: str = "") -> Path:
        file = self.directory / name
        size = ["-b", "2048"] if key_type == "rsa" else []  # longer ones take a second to make
        command = ["ssh-keygen", "-q", "-t", key_type, *size, "-N", passphrase, "-C", name, "-f", str(file)]
        subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)
        return file

    def authorize(self, key_file: Path) -> None:
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(key_file.with_name(key_file.name + ".pub").read_text())

    def add_config(self, *lines: str) -> None:
        """Heeded from the next start on."""
        self._more_config.extend(lines)

    def start_shells_in(self, home: Path) -> None:
        """From the next start on, commands do not read the shell's start files of whoever runs the tests.
        Programs in `home/bin` have precedence."""
        home.mkdir(exist_ok=True)
        path = f"{home}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.add_config(f"SetEnv HOME={home} PATH={path}")

    def serve_files_by(self, script: str) -> None:
        """From the next start on, a shell script serves SFTP: `exec $SFTP_SERVER` is the usual way."""
        file = self.directory / "sftp.sh"
        file.write_text(f"#!/bin/sh\nSFTP_SERVER={SFTP_SERVER}\n{script}\n")
        file.chmod(0o755)
        self.add_config(f"Subsystem sftp {file}")

    def connection_count(self) -> int:
        return len(self._children_of_listener())

    def log(self) -> str:
        file = self.directory / "sshd.log"
        return file.read_text(errors="replace") if file.exists() else ""

    _orphans: tuple[int, ...] = ()

    def _try_to_start(self) -> bool:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where Debian's sshd drops its privileges to
        config = self._write_config()
        with (self.directory / "sshd.log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._lifeline = Lifeline(self._process.pid)
        if self._answers():
            return True
        self._end_process()
        return False

    def _end_process(self) -> None:
        assert self._process is not None and self._lifeline is not None
        self._lifeline.release()
        self._process.kill()
        self._process.wait()
        self._process = self._lifeline = None

    def _write_config(self) -> Path:
        authorized = self.directory / "authorized_keys"
        if not authorized.exists():
            self.authorize(self.key_file)
        config = self.directory / "sshd_config"
        config.write_text(
            "".join(f"{line}\n" for line in self._more_config)  # of two lines sshd heeds the first
            + f"Port {self.port}\nListenAddress {self.host}\nHostKey {self.host_key_file}\n"
            f"AuthorizedKeysFile {authorized}\nPidFile none\nUsePAM no\nUseDNS no\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"MaxStartups {self._max_startups}\nAllowTcpForwarding yes\n"
            + ("" if self._has_own_subsystem() else "Subsystem sftp internal-sftp\n")
        )
        self._turn_off_penalties(config)
        return config

    def _has_own_subsystem(self) -> bool:
        """sshd refuses to start if one is defined twice."""
        return any(line.startswith("Subsystem sftp ") for line in self._more_config)

    def _turn_off_penalties(self, config: Path) -> None:
        """OpenSSH 9.8 and later ban an address that fails to log in: here that is everybody's address."""
        plain = config.read_text()
        config.write_text(plain + "PerSourcePenalties no\n")
        check = subprocess.run([SSHD, "-t", "-f", str(config)], capture_output=True, timeout=30, check=False)
        if check.returncode:
            config.write_text(plain)

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.host, self.port), timeout=1.0) as connection,
            ):
                return connection.recv(4) == b"SSH-" and self._process.poll() is None
            time.sleep(0.02)
        return False

    def _signal_peers(self, number: signal.Signals) -> None:
        for process_id in self._peers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, number)

    def _peers(self) -> tuple[int, ...]:
        """Every process that serves a connection, those of a listener that is gone included."""
        living = set(_parents())
        return (*self._children_of_listener(deep=True), *(pid for pid in self._orphans if pid in living))

    def _children_of_listener(self, *, deep: bool = False) -> tuple[int, ...]:
        if self._process is None:
            return ()
        parents = _parents()
        found = [pid for pid, parent in parents.items() if parent == self._process.pid]
        for pid in found if deep else ():
            found.extend(child for child, parent in parents.items() if parent == pid)
        return tuple(found)


def _parents() -> dict[int, int]:
    """The parent of each process that lives (zombies do not)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    return parents


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
