"""Tests of the limit of open files."""

import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.instance import Instance
from tests.integration.graphs import painted
from tests.processes import REPOSITORY
from tests.server.conftest import LIMIT_S
from tests.server_process import ServerProcess

SELECT_LIMIT = 1024
RAISE = """
import resource
from comfyui_workflow.server.descriptors import raise_open_files_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, min(500, hard)))
raise_open_files_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAISE], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    soft, hard = map(int, done.stdout.split())
    assert soft == hard > 64


def test_a_run_goes_its_way_where_select_would_fail(tmp_path: Path, instance: Instance) -> None:
    """Idle connections use all descriptors below the limit of `select()` when the instance is connected."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * SELECT_LIMIT:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * SELECT_LIMIT), hard))
    with ServerProcess(tmp_path) as server, ExitStack() as opened:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        address = ("127.0.0.1", urlsplit(server.url).port)
        for _ in range(SELECT_LIMIT + 50):
            opened.enter_context(socket.create_connection(address, timeout=LIMIT_S))
        done = server.until_finished(server.execute(instance.ssh_string, painted(0x203040)))
        assert (done["status"], done["error_message"]) == ("completed", None)
