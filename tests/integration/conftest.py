"""A server for each worker; tests that kill or configure one make their own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess


@pytest.fixture(scope="session")
def _worker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(_worker_server: ServerProcess, tmp_path: Path) -> ServerProcess:
    """The worker's server, with an output directory of the test's own."""
    _worker_server.output_dir = tmp_path / "outputs"
    return _worker_server


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers of the test's own, and leaves none."""
    made: list[ServerProcess] = []

    def make(**settings: object) -> ServerProcess:
        server = ServerProcess(tmp_path / f"server {len(made)}", **settings)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()
