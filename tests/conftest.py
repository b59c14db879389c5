"""Fixtures of many tests: a sandbox for each worker, and the ways to reach it over SSH."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests import processes
from tests.instance import Instance, OpenSSHInstance, SandboxSSHInstance
from tests.sandbox_process import SandboxProcess
from tests.sshd import Sshd

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: what we start would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The keys in the agent of whoever runs the tests are no keys of the tests.
os.environ.pop("SSH_AUTH_SOCK", None)

# Compiled modules are kept, which images of containers turn off: each of the many processes that tests start
# would compile everything that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

processes.is_forking = True


def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for another process most of the time."""
    return 3 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: no search for garbage looks at them."""
    gc.freeze()


@pytest.fixture(scope="session")
def _worker_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_worker_sandbox: SandboxProcess) -> SandboxProcess:
    """A running sandbox as good as new: started once a worker, and reset."""
    _worker_sandbox.reset()
    return _worker_sandbox


@pytest.fixture(scope="session")
def _worker_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(params=["sandbox ssh", "openssh"])
def instance(request: pytest.FixtureRequest, sandbox: SandboxProcess) -> Iterator[Instance]:
    """The sandbox's ComfyUI and files, behind its own SSH server and behind a real sshd."""
    if request.param == "sandbox ssh":
        yield SandboxSSHInstance(sandbox)
        return
    reached = OpenSSHInstance(sandbox, request.getfixturevalue("_worker_sshd"))
    yield reached
    reached.settle()
