"""What all is measured on: one sandbox behind a real sshd, reached without delay or over a long way.

with Testbed(tmp_path) as testbed:
    for way in testbed.ways:                # near, and 80 ms away
        way.ssh_string, way.comfyui_url
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
class Way:
    """How the instance is reached: over SSH, or for comparison straight at ComfyUI's port, as far away."""

    name: str
    round_trip_s: float
    ssh_string: str
    comfyui_url: str
    comfyui_port: int

    @property
    def round_trip_ms(self) -> float:
        return 1000 * self.round_trip_s


class Testbed:
    __test__ = False  # pytest takes the name for that of a test

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.sandbox = stack.enter_context(SandboxProcess(self.directory / "sandbox"))
            self.sshd = stack.enter_context(Sshd(self.directory / "sshd"))
            self.near = self._way("near", 0.0, self.sshd.port, self.sandbox.comfyui_port)
            far_ssh = stack.enter_context(delay_proxy(self.sshd.port, rtt_s=FAR_ROUND_TRIP_S))
            far_web = stack.enter_context(delay_proxy(self.sandbox.comfyui_port, rtt_s=FAR_ROUND_TRIP_S))
            self.far = self._way("at 80 ms", FAR_ROUND_TRIP_S, far_ssh, far_web)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def ways(self) -> tuple[Way, Way]:
        return self.near, self.far

    def new_directory(self, name: str) -> Path:
        """Empty, of whoever asks."""
        number = len(list(self.directory.glob(f"{name}*")))
        made = self.directory / f"{name}{number}"
        made.mkdir(parents=True)
        return made

    def login_count(self) -> int:
        """How often anybody logged in at the sshd so far."""
        return self.sshd.log().count("Accepted publickey")

    def _way(self, name: str, round_trip_s: float, ssh_port: int, web_port: int) -> Way:
        comfyui_port = self.sandbox.comfyui_port
        sshd = self.sshd
        return Way(
            name=name,
            round_trip_s=round_trip_s,
            ssh_string=f"ssh -p {ssh_port} {sshd.user}@{sshd.host} -i {sshd.key_file}"
            f" -L 8188:localhost:{comfyui_port}",
            comfyui_url=f"http://127.0.0.1:{web_port}",
            comfyui_port=comfyui_port,
        )
