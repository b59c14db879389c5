"""One power cut: a server and its clients, its disk at a random moment, and what a new server makes of it."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.steps import is_stepping
from tests.chaos.strikes import PromisesBroken, Strike
from tests.chaos.trial import Trial
from tests.delivery.receiver import receiving
from tests.power_cut.disk import Disk
from tests.power_cut.judgement import (
    Finding,
    Kind,
    found_at_the_start,
    found_in_the_end,
    found_on_disk,
    found_strays,
    sentences_of,
)
from tests.power_cut.orders import Clients, Ledger
from tests.server_process import FINISHED, Json

_numbers = itertools.count()
ARRIVES_WITHIN_S = 60.0
STEP_DELAYS_S = (0.0, 0.002, 0.02)
MOST_AT_FIRST = 4
ONCE_MORE = 0.3
"""How often the power fails once more while the server recovers."""
SOON_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When the power is cut: so long after the run of the trial has come to some point."""

    name: str
    has_come: Callable[[Json], bool]
    most_s: float
    """Less, where the whole must be short."""


ANSWERED = Moment(name="after it was accepted", has_come=lambda p: True, most_s=0.5)
SUBMITTED = Moment(name="after its prompt was submitted", has_come=lambda p: bool(p["prompt_id"]), most_s=0.3)
EXECUTING = Moment(name="after it began to execute", has_come=is_stepping, most_s=6.0)
FETCHING = Moment(
    name="after its outputs were known",
    has_come=lambda p: p["phase"] == "downloading" or bool(p["outputs"]),
    most_s=0.2,
)
COMPLETED = Moment(name="after it was completed", has_come=lambda p: p["status"] == "completed", most_s=0.5)
LATER = Moment(name="after it was completed", has_come=lambda p: p["status"] == "completed", most_s=36.0)
"""The kernel writes back what is older than thirty seconds, looking every five."""

MOMENTS = (ANSWERED, SUBMITTED, EXECUTING, FETCHING, COMPLETED, LATER)


def keep_everything_on_a_disk(file_system: str) -> Callable[[Trial], None]:
    """Data, uploads and outputs; the instance is another machine, and has power. Every other server is that
    of a busy machine."""

    def set_up(trial: Trial) -> None:
        disk = trial.clear.enter_context(Disk(trial.directory / "power", file_system))
        trial.notes["disk"] = disk
        trial.notes["receiver"] = trial.clear.enter_context(receiving())
        trial.server.data_dir = disk.place / "data"
        trial.server.state_file = disk.place / "data" / "state.json"
        trial.server.output_dir = disk.place / "outputs"
        trial.server.settings["output_dir"] = disk.place / "other outputs"
        trial.server.settings["webhook_private"] = True
        if next(_numbers) % 2:
            trial.server.arguments = ["-m", "tests.power_cut.busy_server"]

    return set_up


def cut_power(moments: tuple[Moment, ...] = MOMENTS, seed: int | None = None) -> Strike:
    """At one of these moments. Everything random follows from the seed, but for the speed of this machine."""

    def strike(trial: Trial) -> None:
        own_seed = random.randrange(2**32) if seed is None else seed
        chance = random.Random(own_seed)
        moment = chance.choice(moments)
        wait_s = chance.uniform(0, min(moment.most_s, trial.knobs.power_stays_s))
        findings = list(_findings(trial, chance, moment, wait_s))
        if findings:
            where = f"the power was cut {wait_s:.2f} s {moment.name} (seed {own_seed})"
            raise PromisesBroken([*sentences_of(findings), where])

    return strike


def _findings(trial: Trial, chance: random.Random, moment: Moment, wait_s: float) -> Iterator[Finding]:
    others = Path(str(trial.server.settings["output_dir"]))
    trial.tell(step_delay_s=chance.choice(STEP_DELAYS_S))
    clients = Clients(
        server=trial.server,
        sandbox=trial.sandbox,
        ssh_string=trial.ssh_string,
        output_dir=others,
        chance=chance,
        receiver=trial.notes["receiver"],
    )
    clients.ledger.runs.append(trial.run)
    clients.order_some(chance.randint(0, MOST_AT_FIRST))
    clients.start(pause_s=chance.choice((None, (0.05, 1.0))))
    trial.server.until(trial.run, lambda p: moment.has_come(p) or p["status"] in FINISHED, ARRIVES_WITHIN_S)
    time.sleep(wait_s)  # the moment is what is random here: there is nothing to wait for
    cuts_s = [_cut(trial, clients)]
    yield from _found_after_the_cut(trial, clients.ledger)
    if chance.random() < ONCE_MORE:
        clients.start(pause_s=None)
        time.sleep(chance.uniform(0, min(SOON_S, trial.knobs.power_stays_s)))
        cuts_s.append(_cut(trial, clients))
        yield from _found_after_the_cut(trial, clients.ledger)
    trial.tell(step_delay_s=0.0)
    yield from found_in_the_end(trial, clients.ledger, cuts_s)
    yield from found_strays(trial.server, (trial.server.output_dir, others))


def _cut(trial: Trial, clients: Clients) -> float:
    """When. The server is stopped first, so that nothing leaves it between the copy and its end."""
    disk: Disk = trial.notes["disk"]
    cut_at_s = time.time()
    os.kill(trial.server.pid, signal.SIGSTOP)
    disk.cut()
    trial.server.kill()
    clients.stop()
    disk.restore()
    return cut_at_s


def _found_after_the_cut(trial: Trial, ledger: Ledger) -> Iterator[Finding]:
    """The server is started again."""
    yield from found_on_disk(trial, ledger)
    log_begins_at = len(trial.server.log())
    try:
        trial.server.start()
    except AssertionError as error:
        raise PromisesBroken([str(Finding(kind=Kind.NO_START, what=str(error)[-500:]))]) from error
    yield from found_at_the_start(trial.server, ledger, log_begins_at)
