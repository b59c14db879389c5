"""A server with several sandboxes as instances, set up as a user would do it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Machines:
    server: ServerProcess
    sandboxes: dict[str, SandboxProcess]

    @property
    def instances_url(self) -> str:
        return self.server.url.removesuffix("/workflow") + "/instances"

    def instance(self, name: str) -> Json:
        found: Json = requests.get(f"{self.instances_url}/{name}", timeout=10).json()["instance"]
        return found

    def change(self, name: str, **fields: object) -> None:
        answer = requests.patch(f"{self.instances_url}/{name}", json=fields, timeout=10)
        assert answer.status_code == 200, answer.text

    def order(self, body: Json) -> str:
        if "runs" not in body:
            body = {"output_dir": str(self.server.output_dir), **body}
        answer = self.server.post("/batch", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["batch_id"])

    def progress(self, batch_id: str) -> Json:
        found: Json = self.server.get(f"/batch/{batch_id}/progress")["progress"]
        return found

    def runs(self, batch_id: str) -> list[Json]:
        """In the order they were ordered."""
        found: list[Json] = self.server.get(f"/batch/{batch_id}/summary")["workflows"]
        return found

    def executions(self) -> dict[str, Counter[str]]:
        """How often each prompt was executed, by instance."""
        return {
            name: Counter(str(entry["prompt_id"]) for entry in sandbox.executions())
            for name, sandbox in self.sandboxes.items()
        }


@contextmanager
def machines(
    directory: Path,
    prices: Sequence[float | None],
    *,
    server: ServerProcess | None = None,
    **settings: object,
) -> Iterator[Machines]:
    """An instance for each price, called gpu0, gpu1, …"""
    with ExitStack() as stack:
        own = server or stack.enter_context(ServerProcess(directory / "server", **settings))
        sandboxes = {
            f"gpu{number}": stack.enter_context(SandboxProcess(directory / f"gpu{number}"))
            for number in range(len(prices))
        }
        fleet = Machines(server=own, sandboxes=sandboxes)
        for (name, sandbox), price in zip(sandboxes.items(), prices, strict=True):
            fields = {
                "name": name,
                "ssh_connection": sandbox.ssh_string,
                "comfyui_input_dir": str(sandbox.input_dir),
                "comfyui_output_dir": str(sandbox.output_dir),
                "price_per_hour": price,
            }
            answer = requests.post(fleet.instances_url, json=fields, timeout=10)
            assert answer.status_code == 201, answer.text
        yield fleet
