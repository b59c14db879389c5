"""The short form of the power cuts: a few of each disk, at chosen moments. `make chaos ONLY="power cut"
TRIES=100 JOBS=6` is the long one."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.chaos.faults import POWER, Fault
from tests.chaos.harness import Stage
from tests.chaos.report import said
from tests.chaos.steps import Step
from tests.chaos.trial import Knobs
from tests.power_cut.cutting import ANSWERED, COMPLETED, EXECUTING, Moment, cut_power


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("power"), Knobs(power_stays_s=1.0)) as stage:
        yield stage


@pytest.mark.parametrize(
    ("moment", "seed"),
    ((ANSWERED, 73), (EXECUTING, 90), (COMPLETED, 109)),
    ids=lambda each: each.name if isinstance(each, Moment) else "",
)
@pytest.mark.parametrize("fault", POWER, ids=lambda fault: fault.name)
def test_what_was_answered_outlives_the_power(stage: Stage, fault: Fault, moment: Moment, seed: int) -> None:
    """With these seeds each has four orders of different sorts beside its run."""
    if reason := fault.lacks():
        pytest.skip(reason)
    verdict = stage.attempt(replace(fault, strike=cut_power((moment,), seed=seed)), Step.ANY)
    assert not verdict.broken, said(verdict)
