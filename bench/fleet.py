"""Many simulated ComfyUIs in one process, each with its own queue, worker and port.

    with Fleet(tmp_path, count=20) as fleet: fleet.ports
    python -m bench.fleet --root DIR --count 20           # prints the ports; ends when its input does

Their steps are slow, so that a prompt runs during the whole measurement.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Self

from comfyui_workflow.sandbox.comfyui_server import ComfyUIServer
from comfyui_workflow.sandbox.node import Folders
from comfyui_workflow.sandbox.nodes import NODE_CLASSES

STEP_DELAY_S = 0.9
STOP_LIMIT_S = 20.0


class Fleet:
    def __init__(self, root: Path, *, count: int) -> None:
        self._root = root
        self._count = count
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.fleet", "--root", str(self._root)]
        self._process = subprocess.Popen(
            [*command, "--count", str(self._count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(STOP_LIMIT_S)
        self._process.stdout.close()


def _comfyui(root: Path) -> ComfyUIServer:
    folders = Folders(input_dir=root / "input", output_dir=root / "output", temp_dir=root / "temp")
    comfyui = ComfyUIServer(folders=folders, node_classes=NODE_CLASSES, preview_method="none")
    comfyui.faults.change({"step_delay_s": STEP_DELAY_S})
    return comfyui


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    servers = [_comfyui(arguments.root / str(number)) for number in range(arguments.count)]
    ports = [await server.start() for server in servers]
    sys.stdout.write(f"{json.dumps(ports)}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        await server.stop()


if __name__ == "__main__":
    asyncio.run(_main())
