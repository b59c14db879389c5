"""One S3 for each worker; tests have buckets of their own."""

from collections.abc import Iterator

import pytest

from tests.storage.s3_server import running_s3


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with running_s3() as url:
        yield url
