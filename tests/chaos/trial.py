"""One try of one fault: a fresh machine, a server, one run, and its results."""

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
"""A batch that is saved immediately, and a picture after a node with many steps."""
STEPS = 400
STEP_DELAY_S = 0.1
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Intensity of the faults; lower in the short form."""

    refused_s: float = 30.0
    cancels: int = 5
    power_stays_s: float = 36.0
    """Maximum time in seconds between the first moment for a power cut and the cut."""


def chaos_graph() -> Json:
    """Returns a new graph each time, so that ComfyUI has no cached results."""
    number = next(_numbers)
    return {
        "1": node("EmptyImage", width=48, height=48, batch_size=IMAGES, color=number % 0xFFFFFF),
        "2": node("SaveImage", images=["1", 0], filename_prefix="early"),
        "3": node("SandboxSlow", image=["4", 0], steps=STEPS, seconds_per_step=0.0, seed=number),
        "4": node("ImageFromBatch", image=["1", 0], batch_index=0, length=1),
        "5": node("SaveImage", images=["3", 0], filename_prefix="Early"),
    }


class TooLate(Exception):
    """The run ended before the fault was injected."""


@dataclass(kw_only=True)
class Trial:
    """`heal`: callbacks that end the fault. `clear`: callbacks that clean up after the trial. Both run in
    reverse order."""

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
    """Data that a fault passes to its promise."""

    @property
    def ssh_string(self) -> str:
        return self.sshd.ssh_string(comfyui_port=self.sandbox.comfyui_port)

    def execute(self) -> None:
        self.run = self.server.execute(self.ssh_string, self.graph, **self.fields)

    def progress(self) -> Json:
        return self.server.progress(self.run)

    def until(self, condition: Callable[[Json], bool], timeout_s: float = 30) -> Json:
        """Waits for the condition. Raises: TooLate if the run ends before."""

        def holds(progress: Json) -> bool:
            if condition(progress):
                return True
            if progress["status"] in FINISHED:
                raise TooLate
            return False

        return self.server.until(self.run, holds, timeout_s)

    def is_live_on_disk(self) -> bool:
        """True if the record of the run is unfinished; sends no request to the server."""
        return (self.server.data_dir / "runs" / "live" / self.run).exists()

    def status_on_disk(self) -> str:
        for place in ("live", "finished"):
            record = self.server.data_dir / "runs" / place / self.run
            with suppress(FileNotFoundError):
                return RecordReader(RecordFormat(self.server.data_dir)).read(record).status.value
        return "gone"

    def tell(self, **faults: object) -> None:
        """Sets faults of the sandbox. Retries, because the sandbox may be restarting because of an earlier
        fault."""

        def is_set() -> bool:
            try:
                self.sandbox.faults(**faults)
            except requests.ConnectionError:
                return False
            return True

        wait_until(is_set, 20, "the sandbox does not respond")

    def executions(self) -> list[Json]:
        """Returns the executions of our run, which carry our mark."""
        return [one for one in self.sandbox.executions() if self._is_ours(one)]

    def _is_ours(self, execution: Json) -> bool:
        mark = str(execution["extra_data"].get(CORRELATION_KEY, ""))
        return mark.startswith(self.run) if self.run else False

    def prompts_got(self) -> int:
        """Returns the number of prompts that ComfyUI has received, queued or not."""
        log = requests.get(f"{self.sandbox.comfyui_url}/internal/logs/raw", timeout=10).text
        return log.count("got prompt")

    def remote_queue_of(self) -> list[str]:
        """Returns the ids of the running and waiting prompts."""
        queue = requests.get(f"{self.sandbox.comfyui_url}/queue", timeout=10).json()
        return [item[1] for item in queue["queue_running"] + queue["queue_pending"]]

    def history(self) -> Json:
        found: Json = requests.get(f"{self.sandbox.comfyui_url}/history", timeout=10).json()
        return found

    def until_over_there(self, timeout_s: float = 30) -> None:
        """Waits until ComfyUI has finished its first prompt."""
        wait_until(lambda: bool(self.history()), timeout_s, "ComfyUI does not end the prompt")

    def remote(self, output: Json) -> Path:
        """The file on the instance; `folder` is an absolute directory for one outside of ComfyUI's."""
        is_outside = output["folder"].startswith("/")
        directory = Path(output["folder"]) if is_outside else self.sandbox.output_dir
        return directory / output["subfolder"] / output["filename"]

    def saved_there(self) -> list[Path]:
        return sorted(path for path in self.sandbox.output_dir.rglob("*") if path.is_file())

    def fatten(self, size_bytes: int) -> None:
        """Makes the saved outputs on the instance as large as real ones, without work for its worker. The
        first file does not change; each further one is `size_bytes` larger than the one before."""
        for times, path in enumerate(self.saved_there()):
            with path.open("ab") as file:
                file.write(path.name.encode() * (times * size_bytes // len(path.name)))

    def tmpfs(self, name: str, size: str) -> Path:
        """Mounts a small disk. Raises: subprocess.CalledProcessError if mounting is not allowed."""
        place = self.directory / name
        place.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(place))
        self.clear.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
        return place

    def close(self) -> None:
        """Restores everything. The instance first, because a frozen instance delays everything else."""
        self.heal.close()
        self.clear.close()
        self.sshd.kill_connections()


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=10)


def may_mount() -> str | None:
    """Returns None, or the reason why mounting is impossible."""
    if shutil.which("mount") is None:
        return "there is no mount here"
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    return None if tried.returncode == 0 else "mounting a small disk is not allowed here"


def wait_until(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
