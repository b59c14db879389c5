"""Clients of a server whose power will be cut, and a ledger of every answer that they got."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from tests.delivery.receiver import Receiver
from tests.integration.graphs import Graph, node
from tests.sandbox_process import SandboxProcess
from tests.server_process import FINISHED, Json, ServerProcess

BATCH_SIZES = (3, 12)
"""The larger one is written and synced another way than a few runs."""
LOOK_EVERY_S = 0.05
FAILS_WITHIN_S = 60.0
MOST_ORDERS = 20
_numbers = itertools.count(1)


@dataclass(kw_only=True)
class Ledger:
    """Everything that was answered with success, and so must survive the cut. `completed` holds the outputs
    of each run that was seen to be completed."""

    runs: list[str] = field(default_factory=list)
    batches: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[Path, bytes] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    webhooks: dict[str, str] = field(default_factory=dict)
    """The path that hears of each job, where one was asked for."""
    instances: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """With the price of each; while it is changed, either."""
    priorities: dict[str, int] = field(default_factory=dict)
    cancelled: dict[str, float] = field(default_factory=dict)
    """And when that was answered."""
    asked_to_end: set[str] = field(default_factory=set)
    """Runs that may be cancelled, since somebody asked for it."""
    failing: set[str] = field(default_factory=set)
    """Runs that were ordered to fail, and are retried."""
    completed: dict[str, list[Json]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Sentences about answers that were wrong."""

    @property
    def may_end_otherwise(self) -> set[str]:
        return self.asked_to_end | self.failing

    @property
    def every_run(self) -> list[str]:
        return [*self.runs, *itertools.chain.from_iterable(self.batches.values()), *self.jobs]


class Clients:
    """Orders of every sort, at random; and somebody who looks at every run until it is finished."""

    def __init__(
        self,
        *,
        server: ServerProcess,
        sandbox: SandboxProcess,
        ssh_string: str,
        output_dir: Path,
        chance: random.Random,
        batch_sizes: tuple[int, ...] = BATCH_SIZES,
        receiver: Receiver | None = None,
    ) -> None:
        self.ledger = Ledger()
        self._server = server
        self._sandbox = sandbox
        self._ssh_string = ssh_string
        self._output_dir = output_dir
        self._chance = chance
        self._batch_sizes = batch_sizes
        self._receiver = receiver
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def order_some(self, count: int) -> None:
        """Returns when all are answered."""
        for order in self._chance.choices(self._orders(), k=count):
            order()

    def order_each(self) -> None:
        """One of each sort."""
        for order in self._orders():
            order()

    def _orders(self) -> tuple[Callable[[], object], ...]:
        return (
            self._execute,
            self._execute_with_upload,
            self._upload,
            self._batch,
            self._cancel_one,
            self._cancel_batch,
            self._job,
            self._prioritize_one,
            self._retry_one,
        )

    def start(self, *, pause_s: tuple[float, float] | None) -> None:
        """Look at all runs; and go on ordering with such pauses, if that is said. Again after a `stop`."""
        self._stopped.clear()
        self._begin(self._watch)
        if pause_s is not None:
            self._begin(lambda: self._go_on_ordering(*pause_s))

    def stop(self) -> None:
        """When the server is dead: whoever waits for it is told so by the system."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
        self._threads.clear()

    def _begin(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._until_the_server_is_gone, args=(target,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _until_the_server_is_gone(self, target: Callable[[], None]) -> None:
        with suppress(requests.RequestException):
            target()

    def _go_on_ordering(self, shortest_s: float, longest_s: float) -> None:
        for _ in range(MOST_ORDERS):
            if self._stopped.wait(self._chance.uniform(shortest_s, longest_s)):
                return
            self.order_some(1)

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            for run_id in self.ledger.every_run:
                if run_id not in self.ledger.completed and not self._stopped.is_set():
                    self._look_at(run_id)

    def _look_at(self, run_id: str) -> None:
        progress = self._server.progress(run_id)
        if progress["status"] == "completed":
            self.ledger.completed[run_id] = progress["outputs"]
        elif progress["status"] in FINISHED and run_id not in self.ledger.asked_to_end | self.ledger.failing:
            self.ledger.refused.add(f"{run_id} {progress['status']}: {progress['error_message']}")

    def _order(self, **fields: object) -> Json:
        return {
            "ssh_connection": self._ssh_string,
            "output_dir": str(self._output_dir),
            "comfyui_input_dir": str(self._sandbox.input_dir),
            **fields,
        }

    def _post(self, path: str, body: Json) -> Json:
        answer = self._server.post(path, body)
        found: Json = answer.json()
        if not answer.ok:
            self.ledger.refused.add(f"POST {path}: {answer.status_code} {answer.text[:300]}")
        return found

    def _execute(self) -> None:
        self._new_run(workflow=_painted(steps=self._chance.choice((1, 200))))

    def _new_run(self, note: Callable[[str], object] = str, **fields: object) -> str | None:
        """Its id; `note` hears of it before the watcher does."""
        answer = self._post("/execute", self._order(**fields))
        run_id = answer.get("workflow_id")
        if run_id is not None:
            note(run_id)
            self.ledger.runs.append(run_id)
        return run_id

    def _upload(self) -> Path | None:
        """A picture of noise, which no compression makes small."""
        content = _noise(self._chance)
        url, name = self._server.url + "/files", f"noise {next(_numbers)}.png"
        answer = requests.post(url, files={"file": (name, content)}, timeout=30)
        if not answer.ok:
            self.ledger.refused.add(f"POST /files: {answer.text[:300]}")
            return None
        path = Path(answer.json()["path"])
        self.ledger.uploads[path] = content
        return path

    def _execute_with_upload(self) -> None:
        path = self._upload()
        if path is not None:
            self._new_run(workflow=_loaded(path.name), input_images=[str(path)])

    def _batch(self) -> str | None:
        size = self._chance.choice(self._batch_sizes)
        rows = [{"1.color": next(_numbers)} for _ in range(size)]
        answer = self._post("/batch", self._order(workflow=_painted(steps=1), rows=rows))
        batch_id = answer.get("batch_id")
        if batch_id is not None:
            self.ledger.batches[batch_id] = answer["workflow_ids"]
        return batch_id

    def _cancel_one(self) -> None:
        run_id = self._new_run(workflow=_painted(steps=200))
        if run_id is None:
            return
        self.ledger.asked_to_end.add(run_id)
        if self._post(f"/{run_id}/cancel", {}).get("success"):
            self.ledger.cancelled[run_id] = time.time()

    def _cancel_batch(self) -> None:
        batch_id = self._batch()
        if batch_id is None:
            return
        self.ledger.asked_to_end.update(self.ledger.batches[batch_id])
        if self._post(f"/batch/{batch_id}/cancel", {}).get("success"):
            now = time.time()
            self.ledger.cancelled.update(dict.fromkeys(self.ledger.batches[batch_id], now))

    def _prioritize_one(self) -> None:
        run_id = self._new_run(workflow=_painted(steps=200))
        priority = self._chance.randint(1, 100)
        if run_id and self._server.post(f"/{run_id}/priority", {"priority": priority}).ok:
            self.ledger.priorities[run_id] = priority

    def _retry_one(self) -> None:
        """One that has failed, since there is a file where the folder of its outputs should be; and will
        fail again."""
        blocked = self._server.directory / "blocked"
        blocked.mkdir(exist_ok=True)
        (blocked / "folder").touch()
        graph = _painted(steps=1, prefix="folder/painted")
        run_id = self._new_run(self.ledger.failing.add, workflow=graph, output_dir=str(blocked))
        if run_id is not None:
            self._server.until_status(run_id, "failed", timeout_s=FAILS_WITHIN_S)
            self._post(f"/{run_id}/retry", {})

    def _job(self) -> None:
        """To a named instance, which is new half of the time."""
        if not self.ledger.instances or self._chance.random() < 0.5:
            self._instance()
        url = self._server.url.removesuffix("/comfyui/workflow")
        where = self._chance.choice(list(self.ledger.instances))
        hook = f"/{next(_numbers)}"
        body: Json = {"input": {"workflow": _painted(steps=1)}}
        if self._receiver is not None:
            body["webhook"] = self._receiver.url(hook)
        answer = requests.post(f"{url}/v2/{where}/run", json=body, timeout=30)
        if answer.ok:
            self.ledger.jobs.append(answer.json()["id"])
            if self._receiver is not None:
                self.ledger.webhooks[answer.json()["id"]] = hook
        else:
            self.ledger.refused.add(f"POST /run: {answer.text[:300]}")

    def _instance(self) -> None:
        """Added, and given another price."""
        name, price = f"gpu{next(_numbers)}", self._chance.randint(1, 100) / 4
        body = {"name": name, "ssh_connection": self._ssh_string, "price_per_hour": 1.0}
        url = self._server.url.removesuffix("/workflow") + "/instances"
        requests.post(url, json=body, timeout=30).raise_for_status()
        self.ledger.instances[name] = (1.0, price)
        requests.patch(f"{url}/{name}", json={"price_per_hour": price}, timeout=30).raise_for_status()
        self.ledger.instances[name] = (price,)


def _painted(*, steps: int, prefix: str = "painted") -> Graph:
    """A few pictures; no two graphs share a result that ComfyUI could have cached."""
    number = next(_numbers)
    return {
        "1": node("EmptyImage", width=40, height=40, batch_size=2, color=0x800000 + number),
        "2": node("SandboxSlow", image=["1", 0], steps=steps, seconds_per_step=0.0, seed=number),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def _loaded(image: str) -> Graph:
    return {
        "1": node("LoadImage", image=image),
        "3": node("SaveImage", images=["1", 0], filename_prefix="loaded"),
    }


def _noise(chance: random.Random) -> bytes:
    side = chance.choice((16, 200))
    pixels = np.frombuffer(chance.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
