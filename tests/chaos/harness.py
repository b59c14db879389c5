"""A stage for trials: a sandbox behind a real sshd, and a server. Trials on a stage run one after the
other."""

import itertools
import shutil
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import requests

from tests.chaos.faults import Fault
from tests.chaos.promises import are_files_whole
from tests.chaos.steps import SCENES, Step
from tests.chaos.strikes import PromiseBroken, PromisesBroken
from tests.chaos.trial import Knobs, TooLate, Trial
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess
from tests.sshd import Sshd

MAX_LATE = 5
"""Maximum number of runs that end before the fault is injected; more are reported as a failure."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of one try. `broken` contains a sentence for each broken promise."""

    fault: str
    step: str
    broken: tuple[str, ...] = ()
    executions: int = 0
    are_files_whole: bool = True
    evidence: str = ""


class Stage:
    """The server is reused for the next trial, unless a fault needs its own server."""

    def __init__(self, directory: Path, knobs: Knobs) -> None:
        self._directory = directory
        self._knobs = knobs
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self._sandbox = SandboxProcess(directory / "sandbox")
        self._sshd = Sshd(directory / "sshd")
        self._server: ServerProcess | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(self._sandbox)
        self._stack.enter_context(self._sshd)
        return self

    def __exit__(self, *exception: object) -> None:
        self._drop_server()
        self._stack.close()

    def attempt(self, fault: Fault, step: Step) -> Verdict:
        """Makes one try; repeats it if the run ended before the fault was injected."""
        for _ in range(MAX_LATE):
            trial = self._new_trial(fault)
            try:
                return self._carry_out(trial, fault, step)
            except TooLate:
                continue
            finally:
                self._clear_away(trial, fault)
        return Verdict(
            fault=fault.name,
            step=step,
            broken=(f"the run ended before the fault was injected, {MAX_LATE} times",),
        )

    def _carry_out(self, trial: Trial, fault: Fault, step: Step) -> Verdict:
        broken: list[str] = []
        done: Json = {}
        whole = False
        log_begins_at = trial.server.log_file.stat().st_size
        try:
            done = _play(trial, fault, step)
            broken += filter(None, [trial.notes.get("broken")])
            whole = are_files_whole(trial, done)
            broken += fault.promise(trial, done)
            broken += _traces(trial, log_begins_at)
        except TooLate:
            raise
        except PromisesBroken as error:
            broken += error.sentences
        except (
            PromiseBroken,
            AssertionError,
            requests.RequestException,
            subprocess.TimeoutExpired,
            OSError,
        ) as error:
            broken.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
            broken.append(traceback.format_exc(limit=-3))
        return Verdict(
            fault=fault.name,
            step=step,
            broken=tuple(broken),
            executions=len(trial.executions()),
            are_files_whole=whole,
            evidence=self._keep_evidence(trial, done) if broken else "",
        )

    def _new_trial(self, fault: Fault) -> Trial:
        directory = self._directory / f"try {next(self._numbers)}"
        directory.mkdir()
        self._sandbox.reset()
        trial = Trial(
            directory=directory,
            sandbox=self._sandbox,
            sshd=self._sshd,
            server=self._server or ServerProcess(directory / "server"),
            knobs=self._knobs,
        )
        trial.server.output_dir = directory / "here" / "outputs"
        if fault.needs_own_server or self._server is None:
            try:
                self._start_server(trial, fault)
            except BaseException:
                trial.clear.close()
                raise
        return trial

    def _start_server(self, trial: Trial, fault: Fault) -> None:
        self._drop_server()
        server = trial.server = ServerProcess(trial.directory / "server", **fault.settings)
        server.output_dir = trial.directory / "here" / "outputs"
        if fault.has_clock:
            clock = str(server.directory / "clock")
            server.arguments = ["-m", "tests.chaos.clocked_server", clock]
        if fault.set_up:
            fault.set_up(trial)
        self._server = server
        server.start()

    def _clear_away(self, trial: Trial, fault: Fault) -> None:
        """Removes the files of the trial, but not the directory of a server that is still used."""
        if fault.needs_own_server:
            self._drop_server()
        trial.close()
        shutil.rmtree(trial.directory / "here", ignore_errors=True)

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None

    def _keep_evidence(self, trial: Trial, done: Json) -> str:
        """Returns the data for diagnosis: the outcome of the run, its executions, and the end of the server's
        log."""
        self._server = None if trial.server is self._server else self._server
        trial.server.kill()
        log = "\n".join(trial.server.log().splitlines()[-15:])
        return (
            f"run {trial.run} in {trial.directory}\n"
            f"status {done.get('status')}, error {done.get('error_message')}, notices {done.get('notices')}\n"
            f"executions {trial.executions()}\n{log}"
        )


def _traces(trial: Trial, log_begins_at: int) -> Iterator[str]:
    """Yields a traceback in the server's log."""
    said = trial.server.log_file.read_bytes()[log_begins_at:].decode(errors="replace")
    if "Traceback" in said:
        yield f"a trace in the log of the server:\n{said[said.index('Traceback') :][:1500]}"


def _play(trial: Trial, fault: Fault, step: Step) -> Json:
    """Executes the run from start to end and injects the fault. Raises: TooLate, PromiseBroken;
    AssertionError if the run does not reach the step."""
    scene = SCENES[step]
    scene.prepare(trial)
    trial.execute()
    scene.arrive(trial)
    fault.strike(trial)
    scene.release(trial)
    done = trial.server.until_finished(trial.run, fault.finish_limit_s)
    trial.heal.close()
    return trial.server.progress(done["workflow_id"])
