"""One S3 server for each worker; each test has a bucket of its own."""

from collections.abc import Iterator

import pytest

from tests.storage.s3_server import running_s3


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with running_s3() as url:
        yield url
