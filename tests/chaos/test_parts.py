"""Short form of the faults of runs over several instances: each victim once."""

from collections.abc import Iterator

import pytest

from tests.chaos.parts import KINDS, VICTIMS, Kind, attempt, parts_stage
from tests.scheduling.machines import Machines


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with parts_stage(tmp_path_factory.mktemp("parts")) as fleet:
        yield fleet


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_picture_is_lost_or_there_twice(fleet: Machines, kind: Kind, victim: str) -> None:
    assert attempt(fleet, kind, victim, 1 + VICTIMS.index(victim)).broken == ()
