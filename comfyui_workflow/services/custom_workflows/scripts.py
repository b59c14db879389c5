"""Runs workflow files that are programs: Python, and the JavaScript and TypeScript of comfyui-api.

How it works. Each call starts a process (`run_script.py`, `run_script.cjs`) that loads the file, and gets one
JSON object through a pipe. The process has no shell, no secrets in its environment, and a time limit; its
whole process group is killed afterwards. The files belong to the operator of the server: they are trusted as
far as that user is, and a client chooses only the values. JavaScript files use npm packages that the operator
installs: Node.js looks for them from the directory of the file upwards.
"""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import CustomWorkflowBroken, InvalidRequest, ServerBusy
from comfyui_workflow.parsing.untrusted import as_object

log = logging.getLogger(__name__)

TIME_LIMIT_S = 20.0
MOST_AT_ONCE = 4
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
SCRIPT_SUFFIXES = frozenset({".py", ".js", ".ts"})
_HERE = Path(__file__).parent

Json = dict[str, Any]


class RequirementMissing(CustomWorkflowBroken):
    """Node.js or an npm package is missing: the file can be used, unchanged, as soon as it is installed."""


class WorkflowNotMade(InvalidRequest):
    """The values fit, and the file makes no workflow from them. `reason` is the error of the file."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Generated:
    workflow: Any
    """In either format, not checked."""
    values: Json
    """The values of the request, with the defaults of the file."""


class Scripts:
    """See the module. Thread-safe."""

    def __init__(self, directory: Path, time_limit_s: float = TIME_LIMIT_S) -> None:
        """`directory` is that of the custom workflows, where npm packages are to be installed."""
        self._directory = directory
        self._time_limit_s = time_limit_s
        self._slots = threading.BoundedSemaphore(MOST_AT_ONCE)

    def describe(self, path: Path, context: Mapping[str, Any]) -> Json:
        """Returns `schema`, `summary` and `description` of a file.

        Raises: CustomWorkflowBroken, ServerBusy."""
        return self._call(path, {"command": "describe", "context": context})

    def generate(self, path: Path, values: Mapping[str, Any], context: Mapping[str, Any]) -> Generated:
        """Returns the workflow that a file makes from these values.

        Raises: InvalidRequest if the values do not fit; WorkflowNotMade, CustomWorkflowBroken, ServerBusy."""
        made = self._call(path, {"command": "generate", "input": values, "context": context})
        return Generated(workflow=made.get("workflow"), values=dict(as_object(made.get("input"))))

    def _call(self, path: Path, asked: Mapping[str, Any]) -> Json:
        given = self._run(path, json.dumps({**asked, "file": str(path)}).encode())
        missing = given.get("missing")
        if missing is not None:
            directory = shlex.quote(str(self._directory))
            raise RequirementMissing(
                f"{path.name} needs the npm package {missing}: "
                f"run npm install --prefix {directory} zod@3 sucrase@3"
            )
        error = given.get("error")
        if error is None:
            return given
        if isinstance(given.get("reason"), str):
            raise WorkflowNotMade(str(error), given["reason"])
        if given.get("is_input"):
            raise InvalidRequest(str(error))
        raise CustomWorkflowBroken(f"{path.name}: {error}")

    def _run(self, path: Path, content: bytes) -> Json:
        command = _command(path)
        if not self._slots.acquire(timeout=self._time_limit_s):
            raise ServerBusy(f"{MOST_AT_ONCE} custom workflows are being prepared: try again")
        try:
            return self._answer_of(path, command, content)
        finally:
            self._slots.release()

    def _answer_of(self, path: Path, command: list[str], content: bytes) -> Json:
        try:
            process = subprocess.Popen(  # noqa: S603 - no shell; a file of the operator
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=path.parent,
                env={"LANG": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise CustomWorkflowBroken(
                f"{path.name}: {command[0]} cannot be started: {error.strerror}"
            ) from error
        try:
            output, _ = process.communicate(content, self._time_limit_s)
        except subprocess.TimeoutExpired as error:
            said = f"{path.name} has taken longer than {self._time_limit_s:g} seconds"
            raise CustomWorkflowBroken(said) from error
        finally:
            _end(process)
        return _read(path, output)


def _command(path: Path) -> list[str]:
    """Raises: RequirementMissing if Node.js is needed and not installed."""
    if path.suffix == ".py":
        return [sys.executable, "-I", str(_HERE / "run_script.py")]
    node = shutil.which("node")
    if node is None:
        raise RequirementMissing(f"{path.name} needs Node.js: install it on the machine of this server")
    return [node, "--max-old-space-size=512", str(_HERE / "run_script.cjs")]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and those that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _read(path: Path, output: bytes) -> Json:
    if len(output) > LARGEST_ANSWER_BYTES:
        raise CustomWorkflowBroken(f"{path.name} makes a workflow of more than {LARGEST_ANSWER_BYTES} bytes")
    try:
        return dict(as_object(json.loads(output)))
    except (ValueError, RecursionError) as error:
        raise CustomWorkflowBroken(f"{path.name} ended without a workflow") from error
