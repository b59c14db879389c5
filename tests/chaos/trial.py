"""One try of one fault: a fresh machine, a server, one run, and what is found when it is over."""

import itertools
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.run_directory import RecordReader
from tests.integration.graphs import node
from tests.sandbox_process import SandboxProcess
from tests.server_process import FINISHED, Json, ServerProcess
from tests.sshd import Sshd

IMAGES = 3
OUTPUTS = IMAGES + 1
"""A batch that is saved at once, and a picture that comes after a node of many steps."""
STEPS = 400
STEP_DELAY_S = 0.1
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """How hard a fault strikes: less in the short form."""

    refused_s: float = 30.0
    cancels: int = 5
    power_stays_s: float = 36.0
    """At most, after the moment at which it may be cut."""


def chaos_graph() -> Json:
    """No two share a result that ComfyUI could have cached."""
    number = next(_numbers)
    return {
        "1": node("EmptyImage", width=48, height=48, batch_size=IMAGES, color=number % 0xFFFFFF),
        "2": node("SaveImage", images=["1", 0], filename_prefix="early"),
        "3": node("SandboxSlow", image=["4", 0], steps=STEPS, seconds_per_step=0.0, seed=number),
        "4": node("ImageFromBatch", image=["1", 0], batch_index=0, length=1),
        "5": node("SaveImage", images=["3", 0], filename_prefix="Early"),
    }


class TooLate(Exception):
    """The run was over before it could be struck: nothing was tried."""


@dataclass(kw_only=True)
class Trial:
    """`heal` gets what ends the fault, `clear` what must be gone when all is over: both the last first."""

    directory: Path
    sandbox: SandboxProcess
    sshd: Sshd
    server: ServerProcess
    knobs: Knobs
    heal: ExitStack = field(default_factory=ExitStack)
    clear: ExitStack = field(default_factory=ExitStack)
    graph: Json = field(default_factory=chaos_graph)
    fields: dict[str, object] = field(default_factory=dict)
    run: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a strike wants its promise to know."""

    @property
    def ssh_string(self) -> str:
        return self.sshd.ssh_string(comfyui_port=self.sandbox.comfyui_port)

    def execute(self) -> None:
        self.run = self.server.execute(self.ssh_string, self.graph, **self.fields)

    def progress(self) -> Json:
        return self.server.progress(self.run)

    def until(self, condition: Callable[[Json], bool], timeout_s: float = 30) -> Json:
        """Raises: TooLate when the run is over and it never came to that."""

        def holds(progress: Json) -> bool:
            if condition(progress):
                return True
            if progress["status"] in FINISHED:
                raise TooLate
            return False

        return self.server.until(self.run, holds, timeout_s)

    def is_live_on_disk(self) -> bool:
        """Whether the run was unfinished when its server last wrote: asks no server."""
        return (self.server.data_dir / "runs" / "live" / self.run).exists()

    def status_on_disk(self) -> str:
        for place in ("live", "finished"):
            record = self.server.data_dir / "runs" / place / self.run
            with suppress(FileNotFoundError):
                return RecordReader(RecordFormat(self.server.data_dir)).read(record).status.value
        return "gone"

    def tell(self, **faults: object) -> None:
        """The sandbox, which may be down for a moment because it was told so."""

        def is_told() -> bool:
            try:
                self.sandbox.faults(**faults)
            except requests.ConnectionError:
                return False
            return True

        wait_until(is_told, 20, "the sandbox is not there")

    def executions(self) -> list[Json]:
        """Of our run: those of others carry no mark of ours."""
        return [one for one in self.sandbox.executions() if self._is_ours(one)]

    def _is_ours(self, execution: Json) -> bool:
        mark = str(execution["extra_data"].get(CORRELATION_KEY, ""))
        return mark.startswith(self.run) if self.run else False

    def prompts_got(self) -> int:
        """Those that ComfyUI has read, whether they are in its queue or not."""
        log = requests.get(f"{self.sandbox.comfyui_url}/internal/logs/raw", timeout=10).text
        return log.count("got prompt")

    def remote_queue_of(self) -> list[str]:
        """Ids of those that run or wait."""
        queue = requests.get(f"{self.sandbox.comfyui_url}/queue", timeout=10).json()
        return [item[1] for item in queue["queue_running"] + queue["queue_pending"]]

    def history(self) -> Json:
        found: Json = requests.get(f"{self.sandbox.comfyui_url}/history", timeout=10).json()
        return found

    def until_over_there(self, timeout_s: float = 30) -> None:
        """Until ComfyUI is done with its first prompt."""
        wait_until(lambda: bool(self.history()), timeout_s, "ComfyUI does not end the prompt")

    def remote(self, output: Json) -> Path:
        return self.sandbox.output_dir / output["subfolder"] / output["filename"]

    def saved_there(self) -> list[Path]:
        return sorted(path for path in self.sandbox.output_dir.rglob("*") if path.is_file())

    def fatten(self, size_bytes: int) -> None:
        """Make what is saved on the instance so far as large as real outputs, at no cost to its worker: the
        first stays as it is, each other is larger by so much than the one before."""
        for times, path in enumerate(self.saved_there()):
            with path.open("ab") as file:
                file.write(path.name.encode() * (times * size_bytes // len(path.name)))

    def tmpfs(self, name: str, size: str) -> Path:
        """A small disk of its own. Raises: subprocess.CalledProcessError where we may not mount."""
        place = self.directory / name
        place.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(place))
        self.clear.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
        return place

    def close(self) -> None:
        """Everything as it was. The instance first: a frozen one makes everything else slow."""
        self.heal.close()
        self.clear.close()
        self.sshd.kill_connections()


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=10)


def may_mount() -> str | None:
    """None, or why not."""
    if shutil.which("mount") is None:
        return "there is no mount here"
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    return None if tried.returncode == 0 else "mounting a small disk is not allowed here"


def wait_until(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
