from collections.abc import Iterator

import pytest

from tests.delivery.receiver import Receiver, receiving
from tests.stores.conftest import full_disk

__all__ = ["full_disk", "receiver"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened
