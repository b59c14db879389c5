"""The test bed of all benchmarks: one sandbox behind a real sshd, reached without delay and with 80 ms.

with Testbed(tmp_path) as testbed:
    for link in testbed.links:                # near, and 80 ms away
        link.ssh_string, link.comfyui_url
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.delay_proxy import delay_proxy
from tests.sandbox_process import SandboxProcess
from tests.sshd import Sshd

FAR_ROUND_TRIP_S = 0.08


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link to the instance: over SSH, and for comparison directly to ComfyUI's port with the same delay."""

    name: str
    round_trip_s: float
    ssh_string: str
    comfyui_url: str
    comfyui_port: int

    @property
    def round_trip_ms(self) -> float:
        return 1000 * self.round_trip_s


class Testbed:
    __test__ = False  # pytest would collect the class because of its name

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.sandbox = stack.enter_context(SandboxProcess(self.directory / "sandbox"))
            self.sshd = stack.enter_context(Sshd(self.directory / "sshd"))
            self.near = self._link("near", 0.0, self.sshd.port, self.sandbox.comfyui_port)
            far_ssh = stack.enter_context(delay_proxy(self.sshd.port, rtt_s=FAR_ROUND_TRIP_S))
            far_web = stack.enter_context(delay_proxy(self.sandbox.comfyui_port, rtt_s=FAR_ROUND_TRIP_S))
            self.far = self._link("at 80 ms", FAR_ROUND_TRIP_S, far_ssh, far_web)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def links(self) -> tuple[Link, Link]:
        return self.near, self.far

    def new_directory(self, name: str) -> Path:
        """Creates an empty directory for the caller."""
        number = len(list(self.directory.glob(f"{name}*")))
        made = self.directory / f"{name}{number}"
        made.mkdir(parents=True)
        return made

    def login_count(self) -> int:
        """Returns the number of logins at the sshd so far."""
        return self.sshd.log().count("Accepted publickey")

    def _link(self, name: str, round_trip_s: float, ssh_port: int, web_port: int) -> Link:
        comfyui_port = self.sandbox.comfyui_port
        sshd = self.sshd
        return Link(
            name=name,
            round_trip_s=round_trip_s,
            ssh_string=f"ssh -p {ssh_port} {sshd.user}@{sshd.host} -i {sshd.key_file}"
            f" -L 8188:localhost:{comfyui_port}",
            comfyui_url=f"http://127.0.0.1:{web_port}",
            comfyui_port=comfyui_port,
        )
