"""The fault matrix: each fault, the steps of a run at which it is injected, and the promise that must
hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.chaos import strikes
from tests.chaos.cancels import cancel_others
from tests.chaos.promises import (
    Promise,
    all_of,
    completed,
    each_executed_once,
    each_its_own_picture,
    executed_times,
    failed,
    fetched_by_retry,
    heard_again,
    missing_one,
    nothing_beside,
    once_or_told,
    resubmitted,
    whole_once,
)
from tests.chaos.steps import Step
from tests.chaos.strikes import Strike
from tests.chaos.trial import Trial, may_mount
from tests.power_cut.cutting import cut_power, keep_everything_on_a_disk
from tests.power_cut.disk import FILE_SYSTEMS, cannot_cut

EVERY_STEP = tuple(step for step in Step if step is not Step.ANY)
NOT_SAFE = "not safe to write here"
SOON_SILENT = {"ssh_silence_limit_s": 5}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`set_up` runs before the server starts. `lacks` returns the reason why this machine cannot try the
    fault, or None."""

    name: str
    steps: tuple[Step, ...]
    strike: Strike
    promise: Promise = whole_once
    settings: Mapping[str, object] = field(default_factory=dict)
    set_up: Callable[[Trial], None] | None = None
    lacks: Callable[[], str | None] = lambda: None
    has_clock: bool = False
    finish_limit_s: float = 90

    @property
    def needs_own_server(self) -> bool:
        return bool(self.settings) or self.set_up is not None or self.has_clock


def _put_back(trial: Trial) -> None:
    (trial.directory / "removed").rename(trial.sandbox.output_dir / trial.notes["harmed"])


def _clear_faults(trial: Trial) -> None:
    trial.tell(answers=[])


SERVER = (
    Fault(name="server: kill -9", steps=EVERY_STEP, strike=strikes.kill_server),
    Fault(
        name="server: kill -9, started when ComfyUI is done",
        steps=(Step.EXECUTING,),
        strike=strikes.kill_server_until_all_is_over,
    ),
    Fault(name="server: SIGTERM", steps=EVERY_STEP, strike=strikes.terminate_server),
)

TWO_SERVERS = (
    Fault(
        name="two servers on the same data",
        steps=(Step.QUEUED, Step.EXECUTING, Step.UNANSWERED),
        strike=strikes.start_a_second_server,
        promise=all_of(executed_times(1), completed),
        settings={"log_level": "INFO"},
    ),
    Fault(
        name="two servers on a copy of the data",
        steps=(Step.QUEUED, Step.EXECUTING),
        strike=strikes.start_a_second_server_on_a_copy,
        promise=each_executed_once,
        settings={"log_level": "INFO"},
    ),
)

LATE_POST = (
    Fault(
        name="late POST: arrives while the prompt waits",
        steps=(Step.CONTACT,),
        strike=strikes.hold_back_a_post,
        settings={"in_doubt_s": 1},
    ),
    Fault(
        name="late POST: arrives after the end",
        steps=(Step.CONTACT,),
        strike=strikes.hold_back_a_post_until_the_end,
        promise=once_or_told,
        settings={"in_doubt_s": 1},
    ),
)

CONNECTION = (
    Fault(name="SSH: connection cut", steps=EVERY_STEP, strike=strikes.cut_connection),
    Fault(name="SSH: sshd killed and started", steps=EVERY_STEP, strike=strikes.kill_sshd),
    Fault(
        name="SSH: refused for a while",
        steps=(Step.EXECUTING, Step.CONTACT, Step.DOWNLOADING),
        strike=strikes.refuse_for_a_while,
    ),
    Fault(
        name="SSH: peer frozen, then thawed",
        steps=(Step.DOWNLOADING, Step.EXECUTING, Step.CONTACT, Step.UPLOADING),
        strike=strikes.freeze_peer,
        settings=SOON_SILENT,
    ),
)

STORAGE = (
    Fault(
        name="storage stands still",
        steps=(Step.DOWNLOADING,),
        strike=strikes.freeze_storage,
        settings=SOON_SILENT,
    ),
    Fault(
        name="link breaks again and again",
        steps=(Step.DOWNLOADING,),
        strike=strikes.cut_whenever_some_came,
    ),
    Fault(
        name="output overwritten by the next prompt",
        steps=(Step.EXECUTING, Step.QUEUED),
        strike=strikes.order_runs_of_one_name,
        promise=all_of(completed, each_its_own_picture),
    ),
)

WEBSOCKET = (
    Fault(
        name="websocket: deaf",
        steps=(Step.EXECUTING, Step.QUEUED),
        strike=strikes.deafen_websockets,
        promise=all_of(whole_once, heard_again),
    ),
    Fault(name="websocket: closed", steps=(Step.EXECUTING,), strike=strikes.close_websockets),
    Fault(name="websocket: two of one client id", steps=(Step.EXECUTING,), strike=strikes.steal_client_id),
    Fault(
        name="websocket: another reader is stuck",
        steps=(Step.QUEUED,),
        strike=strikes.block_the_websockets,
        promise=all_of(whole_once, heard_again),
    ),
)

RESTARTS = (
    Fault(
        name="ComfyUI restarted",
        steps=(Step.DOWNLOADING, Step.CONTACT, Step.UPLOADING, Step.BETWEEN_OUTPUTS),
        strike=strikes.restart_comfyui,
    ),
    Fault(
        name="ComfyUI restarted, ours queued",
        steps=(Step.QUEUED,),
        strike=strikes.restart_comfyui,
        promise=resubmitted(1, "the queued prompt is submitted again"),
    ),
    Fault(
        name="ComfyUI restarted, ours running",
        steps=(Step.EXECUTING,),
        strike=strikes.restart_comfyui_and_run_again,
        promise=resubmitted(2, "restarted while the prompt ran; it is submitted again"),
    ),
    Fault(
        name="ComfyUI restarted, our answer lost",
        steps=(Step.UNANSWERED,),
        strike=strikes.restart_comfyui,
        promise=all_of(executed_times(1), completed),
    ),
    Fault(
        name="ComfyUI's worker dead",
        steps=(Step.QUEUED,),
        strike=strikes.kill_worker,
        promise=failed("instance_broken", "worker of ComfyUI"),
        settings={"stall_limit_s": 3},
    ),
)

ANSWERS = tuple(
    Fault(
        name=f"ComfyUI answers {words} to {path}",
        steps=(step,),
        strike=strikes.answer_wrongly(path, mode),
    )
    for path, step in (
        ("/prompt", Step.CONTACT),
        ("/queue", Step.QUEUED),
        ("/history", Step.EXECUTING),
    )
    for mode, words in (
        ("500", "500"),
        ("half_json", "half a JSON"),
        ("html", "HTML"),
        ("empty", "nothing"),
        ("drop", "by hanging up"),
    )
)

HOSTILE = (
    Fault(
        name="ComfyUI answers a bomb to /history",
        steps=(Step.EXECUTING,),
        strike=strikes.answer_wrongly("/history", "bomb"),
        promise=failed("instance_broken", "compresses its answer to GET /history"),
        settings={"largest_answer_mb": 16},
    ),
    Fault(
        name="ComfyUI answers a drip to /history",
        steps=(Step.EXECUTING,),
        strike=strikes.answer_wrongly("/history", "drip"),
        promise=failed("instance_broken", "does not finish its answer to GET /history"),
        settings={"answer_timeout_s": 3},
    ),
)

POISON = (
    Fault(
        name="ComfyUI: history entry poisoned",
        steps=(Step.EXECUTING,),
        strike=strikes.poison_history,
        promise=all_of(
            failed("comfyui", "cannot tell how the prompt ended"), fetched_by_retry(_clear_faults)
        ),
    ),
)

DISK = (
    Fault(
        name="local disk: full at save",
        steps=(Step.EXECUTING, Step.CONTACT, Step.QUEUED),
        set_up=strikes.keep_data_on_a_small_disk,
        strike=strikes.fill_disk,
        lacks=may_mount,
    ),
    Fault(
        name="local disk: full at download",
        steps=(Step.EXECUTING, Step.DOWNLOADING),
        set_up=strikes.keep_outputs_on_a_small_disk,
        strike=strikes.fill_disk,
        lacks=may_mount,
    ),
    Fault(
        name="local disk: state file read-only",
        steps=(Step.EXECUTING, Step.QUEUED),
        set_up=strikes.keep_state_on_a_small_disk,
        strike=strikes.make_disk_read_only,
        lacks=may_mount,
    ),
)

OUTPUT_FILES = (
    Fault(
        name="output: gone",
        steps=(Step.EXECUTING,),
        strike=strikes.remove_output,
        promise=all_of(missing_one("early_00002_.png"), fetched_by_retry(_put_back)),
    ),
    Fault(
        name="output: empty",
        steps=(Step.EXECUTING,),
        strike=strikes.empty_output,
        promise=missing_one("early_00002_.png"),
    ),
    Fault(
        name="output: cut short",
        steps=(Step.EXECUTING,),
        strike=strikes.cut_output_short,
        promise=missing_one("early_00002_.png"),
    ),
    *(
        Fault(
            name=f"output name: {what}",
            steps=(Step.EXECUTING,),
            strike=strikes.rename_output(*lie),
            promise=missing_one(sentence, code),
        )
        for what, lie, sentence, code in (
            ("absolute", ("/opt/evil.png",), "evil.png", "outputs_missing"),
            ("subfolder absolute", ("evil.png", "/opt"), "evil.png", "outputs_missing"),
            ("of the system", ("passwd", "/etc"), NOT_SAFE, "outputs_lost"),
            ("control characters", ("a\nb\x1b[2J.png",), NOT_SAFE, "outputs_lost"),
            ("300 characters", ("x" * 296 + ".png",), NOT_SAFE, "outputs_lost"),
        )
    ),
    *(
        Fault(
            name=f"output name: {what}",
            steps=(Step.EXECUTING,),
            strike=strikes.rename_output(*lie),
            promise=all_of(executed_times(1), completed, nothing_beside),
        )
        for what, lie in (("../", ("../evil.png",)), ("subfolder ../", ("evil.png", "..")))
    ),
    Fault(
        name="output name: two that differ in case",
        steps=(Step.EXECUTING,),
        strike=strikes.give_two_outputs_one_name,
    ),
)

CLOCK = (
    Fault(
        name="clock: jumps ahead and back",
        steps=(Step.EXECUTING,),
        strike=strikes.turn_clock(30, -30),
        has_clock=True,
    ),
    Fault(
        name="clock: jumps back and ahead",
        steps=(Step.EXECUTING,),
        strike=strikes.turn_clock(-30, 30),
        has_clock=True,
    ),
)

CANCELS = (
    Fault(
        name="cancel: five runs",
        steps=(Step.ANY,),
        strike=cancel_others,
        promise=all_of(executed_times(1), completed),
    ),
)

POWER = tuple(
    Fault(
        name=f"power cut: {file_system}",
        steps=(Step.ANY,),
        set_up=keep_everything_on_a_disk(file_system),
        strike=cut_power(),
        promise=all_of(executed_times(1), completed),
        lacks=partial(cannot_cut, file_system),
    )
    for file_system in FILE_SYSTEMS
)

FAULTS: tuple[Fault, ...] = (
    *SERVER,
    *TWO_SERVERS,
    *LATE_POST,
    *CONNECTION,
    *STORAGE,
    *WEBSOCKET,
    *RESTARTS,
    *ANSWERS,
    *HOSTILE,
    *POISON,
    *DISK,
    *OUTPUT_FILES,
    *CLOCK,
    *CANCELS,
    *POWER,
)
