"""Short form of the fault matrix: each fault once, at its first step. `make chaos` runs all of it."""

from collections.abc import Iterator

import pytest

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.harness import Stage
from tests.chaos.report import said
from tests.chaos.trial import Knobs


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("chaos"), Knobs(refused_s=2.0, power_stays_s=1.0)) as stage:
        yield stage


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_promise_is_kept(stage: Stage, fault: Fault) -> None:
    if reason := fault.lacks():
        pytest.skip(reason)
    verdict = stage.attempt(fault, fault.steps[0])
    assert not verdict.broken, said(verdict)
