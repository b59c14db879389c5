"""Promises that must hold when a run with an injected fault has ended. Each promise yields its violations."""

from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from tests.chaos.steps import fetched
from tests.chaos.strikes import HEARD_AGAIN_WITHIN_S
from tests.chaos.trial import OUTPUTS, STEP_DELAY_S, TooLate, Trial, chaos_graph, wait_until
from tests.server_process import Json

Promise = Callable[[Trial, Json], Iterator[str]]


def whole_once(trial: Trial, done: Json) -> Iterator[str]:
    """Completed; executed exactly once; every file equals the file on the instance, byte for byte."""
    yield from executed_times(1)(trial, done)
    yield from completed(trial, done)
    if trial.server.get("/state")["state"] != done:
        yield "the state is not this run's"


def completed(trial: Trial, done: Json) -> Iterator[str]:
    if done["status"] != "completed":
        yield f"it ended {done['status']}: {done['error_message']}"
    if len(done["outputs"]) != OUTPUTS:
        yield f"{len(done['outputs'])} outputs instead of {OUTPUTS}"
    yield from fetched_are_whole(trial, done)
    if done["start_time"] is None or done["start_time"] > done["end_time"]:
        yield f"it started at {done['start_time']} and ended at {done['end_time']}"


def executed_times(*allowed: int) -> Promise:
    def promise(trial: Trial, _done: Json) -> Iterator[str]:
        times = len(trial.executions())
        if times not in allowed:
            yield f"executed {times} times"

    return promise


def fetched_are_whole(trial: Trial, done: Json) -> Iterator[str]:
    """Every downloaded output equals its original, and there are no other files, also no partial ones."""
    said = [Path(output["local_path"]) for output in done["outputs"] if output["downloaded"]]
    for output in done["outputs"]:
        if output["downloaded"] and not _is_same(Path(output["local_path"]), trial.remote(output)):
            yield f"{output['local_path']} is not what {trial.remote(output)} is"
    there = [path for path in trial.server.output_dir.rglob("*") if path.is_file()]
    for path in sorted(set(there) - set(said)):
        yield f"{path} exists, but is not reported"


def are_files_whole(trial: Trial, done: Json) -> bool:
    return not list(fetched_are_whole(trial, done))


def resubmitted(executions: int, notice: str) -> Promise:
    """Submitted a second time, with a notice."""

    def promise(trial: Trial, done: Json) -> Iterator[str]:
        yield from executed_times(executions)(trial, done)
        yield from completed(trial, done)
        if done["submissions"] != 2:
            yield f"submitted {done['submissions']} times"
        if not any(notice in said for said in done["notices"]):
            yield f"no notice {notice!r}; but {done['notices']}"

    return promise


def each_executed_once(trial: Trial, _done: Json) -> Iterator[str]:
    """Each run of a fault with several runs was executed once and is completed."""
    marks = [str(one["extra_data"].get(CORRELATION_KEY, "")) for one in trial.sandbox.executions()]
    for run in trial.notes["runs"]:
        times = sum(mark.startswith(run) for mark in marks)
        status = trial.server.progress(run)["status"]
        if (times, status) != (1, "completed"):
            yield f"{run} was executed {times} times, and is {status}"


def once_or_told(trial: Trial, done: Json) -> Iterator[str]:
    """A copy starts immediately on an idle GPU, with all results in the cache. Then a notice must say so."""
    yield from completed(trial, done)
    wait_until(lambda: trial.prompts_got() == 2, 30, "the late POST does not arrive")
    wait_until(lambda: not trial.remote_queue_of(), 20, "the copy is not dropped")
    if len(trial.executions()) == 1:
        return
    try:
        trial.server.until(trial.run, lambda p: any("executed it twice" in said for said in p["notices"]), 10)
    except AssertionError:
        yield "executed twice, without a notice"


def failed(code: str, sentence: str) -> Promise:
    def promise(trial: Trial, done: Json) -> Iterator[str]:
        yield from executed_times(1)(trial, done)
        if (done["status"], done["error_code"]) != ("failed", code):
            yield f"it ended {done['status']} with {done['error_code']}: {done['error_message']}"
        if sentence not in (done["error_message"] or ""):
            yield f"the reason is {done['error_message']!r}, which does not say {sentence!r}"
        yield from fetched_are_whole(trial, done)

    return promise


def missing_one(sentence: str, code: str = "outputs_missing") -> Promise:
    """One output is reported as missing; the others are downloaded; nothing is written outside of the output
    directory."""

    def promise(trial: Trial, done: Json) -> Iterator[str]:
        yield from failed(code, sentence)(trial, done)
        if fetched(done) != OUTPUTS - 1:
            yield f"{fetched(done)} of the {OUTPUTS - 1} others were fetched"
        yield from nothing_beside(trial, done)

    return promise


def nothing_beside(trial: Trial, _done: Json) -> Iterator[str]:
    """Nothing is written outside of the output directory."""
    beside = [path for path in trial.server.output_dir.parent.iterdir() if path.name != "outputs"]
    if beside:
        yield f"outside of the output directory: {beside}"


def fetched_by_retry(repair: Callable[[Trial], None]) -> Promise:
    """After the repair, a retry downloads the rest and executes nothing again."""

    def promise(trial: Trial, _done: Json) -> Iterator[str]:
        repair(trial)
        answer = trial.server.post(f"/{trial.run}/retry")
        if answer.status_code != 200:
            yield f"no retry: {answer.text}"
        yield from whole_once(trial, trial.server.until_finished(trial.run))

    return promise


def each_its_own_picture(trial: Trial, _done: Json) -> Iterator[str]:
    """Each run that saved under the same file name has its own picture."""
    for run, color in trial.notes["named"].items():
        done = trial.server.until_finished(run)
        if done["status"] != "completed":
            yield f"{run} ended {done['status']}: {done['error_message']}"
            continue
        red, green, blue = Image.open(done["outputs"][0]["local_path"]).convert("RGB").getpixel((0, 0))
        if (red << 16 | green << 8 | blue) != color:
            yield f"{run} has another run's picture: {red:02x}{green:02x}{blue:02x} instead of {color:06x}"


def heard_again(trial: Trial, _done: Json) -> Iterator[str]:
    """The next run shows the steps of its nodes: websocket messages are received again."""
    trial.heal.close()
    trial.tell(deaf_websockets=False, step_delay_s=STEP_DELAY_S)
    trial.graph = chaos_graph()
    trial.execute()
    seen: set[float] = set()
    try:
        trial.until(lambda p: seen.add(p["nodes"][-2]["progress"]) or len(seen) > 4, HEARD_AGAIN_WITHIN_S)
    except (AssertionError, TooLate):
        yield f"no messages of the next run: its steps were {sorted(seen)}"
    trial.tell(step_delay_s=0.0)
    trial.server.until_finished(trial.run)


def all_of(*promises: Promise) -> Promise:
    def promise(trial: Trial, done: Json) -> Iterator[str]:
        for one in promises:
            yield from one(trial, done)

    return promise


def _is_same(here: Path, there: Path) -> bool:
    return here.is_file() and there.is_file() and here.read_bytes() == there.read_bytes()
