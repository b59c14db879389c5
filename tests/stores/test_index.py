"""The index of finished runs finds the same as a check of each summary, and reads only the returned ones."""

import random
from dataclasses import replace

import pytest

from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, RunSummary, summary_of
from comfyui_workflow.stores.index import RunIndex
from comfyui_workflow.stores.summary_keys import keys_of
from tests.stores.test_run_contract import run_number

STATUSES = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
FILTERS = [
    EVERY_RUN,
    RunFilter(statuses=frozenset({RunStatus.FAILED})),
    RunFilter(statuses=frozenset({RunStatus.QUEUED, RunStatus.COMPLETED})),
    RunFilter(name_contains="NIGHT-1"),
    RunFilter(name_contains="nothing"),
    RunFilter(name_contains="nothing", batches_named=frozenset({"b1"})),
    RunFilter(instance="GPU-1"),
    RunFilter(batch_id="b2", statuses=frozenset({RunStatus.FAILED})),
    RunFilter(instance="gpu-2", name_contains="night", statuses=frozenset({RunStatus.COMPLETED})),
]


class Kept:
    """Summaries, with a count of the reads."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self.looks = 0
        self.summaries = {each.run_id: each for each in map(self._made(chance), range(count))}
        self.index = RunIndex(self._look)

    def _look(self, run_id: str) -> RunSummary:
        self.looks += 1
        return self.summaries[run_id]

    def _made(self, chance: random.Random):  # type: ignore[no-untyped-def]
        def make(number: int) -> RunSummary:
            return replace(
                summary_of(run_number(1)),
                run_id=f"comfyui_workflow_{1_700_000_000 + number}_abc",
                workflow_name=f"Night-{chance.randrange(4)}",
                batch_id=chance.choice([None, "b1", "b2"]) if number % 3 else "b3",
                instance_id=f"gpu-{chance.randrange(4)}",
                instance_name="x",
                status=chance.choice(STATUSES),
            )

        return make

    def wanted(self, wanted: RunFilter) -> list[str]:
        """Returns the ids that a check of each summary finds."""
        return [each for each, known in sorted(self.summaries.items(), reverse=True) if wanted.matches(known)]

    def grouped(self, wanted: RunFilter) -> list[str]:
        met: set[str | None] = set()
        found = []
        for each in self.wanted(wanted):
            batch_id = self.summaries[each].batch_id
            if batch_id is None or batch_id not in met:
                found.append(each)
            met.add(batch_id)
        return found


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_a_look_at_each_finds(seed: int) -> None:
    chance = random.Random(seed)
    kept = Kept(150, chance)
    known = list(kept.summaries.values())
    chance.shuffle(known)
    kept.index.add_finished(keys_of(each) for each in known[:100])
    for each in known[100:]:
        kept.summaries[each.run_id] = replace(each, status=RunStatus.QUEUED)
        kept.index.add(each.run_id, each.batch_id)
    for each in chance.sample(known, 40):  # taken up again, or ended
        status = chance.choice([*STATUSES, RunStatus.QUEUED])
        kept.summaries[each.run_id] = replace(each, status=status)
        if status is RunStatus.QUEUED:
            kept.index.add(each.run_id, each.batch_id)
        else:
            kept.index.end(keys_of(kept.summaries[each.run_id]))
    for wanted in FILTERS:
        expected, groups = kept.wanted(wanted), kept.grouped(wanted)
        assert kept.index.count(wanted) == len(expected)
        assert [each.run_id for each in kept.index.newest(None, None, wanted)] == expected
        assert [each.run_id for each in kept.index.grouped(None, None, wanted)] == groups
        for before in expected[::20]:
            older = [each for each in expected if each < before]
            assert [each.run_id for each in kept.index.newest(7, before, wanted)] == older[:7]


@pytest.mark.parametrize("wanted", FILTERS)
def test_of_finished_runs_no_summary_is_looked_at_but_those_of_the_page(wanted: RunFilter) -> None:
    kept = Kept(3000, random.Random(1))
    kept.index.add_finished(map(keys_of, kept.summaries.values()))
    page = kept.index.newest(50, None, wanted)
    assert kept.looks == len(page)
    assert kept.index.count(wanted) == len(kept.wanted(wanted))
    assert kept.looks == len(page)
    groups = kept.index.grouped(50, None, wanted)
    assert kept.looks == len(page) + len(groups)
