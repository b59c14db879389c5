"""Cancels runs at random times, with prompts of another client in the queue."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.chaos.strikes import PromiseBroken
from tests.chaos.trial import Trial, wait_until
from tests.integration.graphs import painted, slow
from tests.server_process import Json

LATEST_S = 3.0
"""About the total duration of the runs of one try."""


def cancel_others(trial: Trial) -> None:
    """Starts `knobs.cancels` runs and cancels each at a random time between its submission and its end."""
    with ThreadPoolExecutor(trial.knobs.cancels) as pool:
        played = list(pool.map(lambda number: _play_one(trial, number), range(trial.knobs.cancels)))
    bystanders = [bystander for bystander, _ in played]
    wait_until(lambda: set(bystanders) <= set(trial.history()), 30, "a bystander never ended")
    ends = _ends(trial)
    found = [*_touched(bystanders, ends), *(words for _, run in played for words in _not_as_ended(run, ends))]
    if found:
        raise PromiseBroken("; ".join(found))


def _play_one(trial: Trial, number: int) -> tuple[str, Json]:
    """Returns the id of the other client's prompt, and the final progress of our run."""
    bystander = _submit_as_other_client(trial, number)
    graph = slow(1000 + number, steps=10, seconds_per_step=0.03)
    run = trial.server.execute(trial.ssh_string, graph, output_dir=str(trial.directory / "others"))
    time.sleep(random.uniform(0, LATEST_S))  # the test varies the time of the cancel
    trial.server.post(f"/{run}/cancel")
    return bystander, trial.server.until_finished(run)


def _submit_as_other_client(trial: Trial, number: int) -> str:
    body = {"prompt": painted(2000 + number, prefix="bystander"), "client_id": "other client"}
    answer = requests.post(f"{trial.sandbox.comfyui_url}/prompt", json=body, timeout=10)
    return str(answer.json()["prompt_id"])


def _ends(trial: Trial) -> Counter[tuple[str, str]]:
    """Counts the ends of each prompt by status."""
    lines = map(json.loads, trial.sandbox.execution_log.read_text().splitlines())
    return Counter((line["prompt_id"], line["status"]) for line in lines if line["event"] == "end")


def _touched(bystanders: list[str], ends: Counter[tuple[str, str]]) -> Iterator[str]:
    for prompt_id in bystanders:
        if ends[prompt_id, "success"] != 1 or ends[prompt_id, "interrupted"]:
            yield f"the prompt {prompt_id} of another client was affected: {ends}"


def _not_as_ended(run: Json, ends: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yields an error unless the run is completed if ComfyUI finished it, and cancelled otherwise."""
    expected = "completed" if ends[run["prompt_id"], "success"] else "cancelled"
    if run["status"] != expected:
        yield f"{run['workflow_id']} is {run['status']} ({run['error_message']}) and not {expected}"
