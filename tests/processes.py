"""Programs of ours as processes: started as a user starts them, or forked from a process that has imported
everything already, which is all that a test would wait for otherwise. `is_forking` says which; the tests of
the commands always start them as a user does."""

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Protocol

REPOSITORY = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1
_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["tests.preloaded"])
is_forking = False


class Process(Protocol):
    """The part of `subprocess.Popen` that the tests use."""

    pid: int

    @property
    def stdout(self) -> IO[str] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def kill(self) -> None: ...

    def send_signal(self, number: int) -> None: ...


def start_python(
    arguments: list[str], *, env: dict[str, str], errors: IO[Any], stands_alone: bool = False
) -> Process:
    """`arguments` are those of `python`: a file or `-m MODULE`, and its own. It dies with this process; one
    that stands alone has a `Lifeline` for that, and hears no Ctrl-C of the terminal."""
    if is_forking:
        return Forked(arguments, env, errors, stands_alone)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        process_group=0 if stands_alone else None,
        preexec_fn=None if stands_alone else _die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
    )


def fork_python(
    arguments: list[str], *, env: dict[str, str], directory: Path, output: int, errors: int
) -> BaseProcess:
    """The same in a directory of its own, writing to these descriptors; its stdin is empty."""
    program = _Program(arguments, env, _Stream(output), _Stream(errors), False, directory)
    process = _forkserver.Process(target=program.run, daemon=True)
    process.start()
    return process


class Forked:
    def __init__(
        self, arguments: list[str], env: dict[str, str], errors: IO[Any], stands_alone: bool
    ) -> None:
        reading, writing = os.pipe()
        program = _Program(arguments, env, _Stream(writing), _Stream(errors.fileno()), stands_alone)
        self._process = _forkserver.Process(target=program.run, daemon=True)
        self._process.start()
        os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stdout: IO[str] | None = os.fdopen(reading)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)


@dataclass
class _Stream:
    """A file descriptor that travels to another process."""

    descriptor: int

    def __getstate__(self) -> Any:
        return DupFd(self.descriptor)

    def __setstate__(self, travelled: Any) -> None:
        self.descriptor = travelled.detach()


@dataclass(frozen=True)
class _Program:
    arguments: list[str]
    env: dict[str, str]
    output: _Stream
    errors: _Stream
    stands_alone: bool
    directory: Path = REPOSITORY

    def run(self) -> None:
        _die_with_parent()
        if self.stands_alone:
            os.setpgid(0, 0)
        os.dup2(self.output.descriptor, 1)
        os.dup2(self.errors.descriptor, 2)
        os.close(self.output.descriptor)
        os.close(self.errors.descriptor)
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.directory)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.arguments[0] == "-m":
            sys.argv[:] = self.arguments[1:]
            runpy.run_module(self.arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = self.arguments
            runpy.run_path(self.arguments[0], run_name="__main__")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
