"""How the server comes to rest."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from comfyui_workflow.app import Server


@dataclass
class Recorder:
    """Stands for every part; says what it was asked to do, and whether runs came to rest when asked."""

    at_rest: list[bool]
    heard: list[str] = field(default_factory=list)

    def stop(self, timeout_s: float | None = None) -> bool:
        self.heard.append("executor stops")
        return self.at_rest.pop(0)

    def close(self, timeout_s: float | None = None) -> None:
        self.heard.append("closed")


@pytest.mark.parametrize(
    ("at_rest", "order"),
    [
        ([True], ["executor stops", "closed", "closed", "closed"]),
        ([False, True], ["executor stops", "closed", "closed", "executor stops", "closed"]),
    ],
)
def test_runs_that_wait_for_an_instance_are_cut_off_and_awaited_before_the_store_closes(
    at_rest: list[bool], order: list[str]
) -> None:
    recorder: Any = Recorder(at_rest)
    instances = SimpleNamespace(local_ports=Recorder([True]), watches=recorder)
    parts: Any = SimpleNamespace(instances=instances, jobs=Recorder([True]), outbox=Recorder([True]))
    Server(
        app=Flask("app"),
        parts=parts,
        store=recorder,
        batches=recorder,
        jobs=recorder,
        executor=recorder,
        links=recorder,
        copies=Recorder([True]),  # type: ignore[arg-type]
        watchman=Recorder([True]),  # type: ignore[arg-type]
    ).stop()
    assert recorder.heard == order
