"""The steps of a run at which a fault is injected, and how the run is held at each step until then."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from PIL import Image

from tests.chaos.trial import OUTPUTS, STEP_DELAY_S, Trial, wait_until
from tests.server_process import Json

LARGE_BYTES = 24_000_000
UPLOAD_BYTES = 60_000_000


class Step(StrEnum):
    CONTACT = "before submit"
    UPLOADING = "uploading"
    UNANSWERED = "POST left, answer not saved"
    QUEUED = "queued"
    EXECUTING = "executing"
    DOWNLOADING = "downloading"
    BETWEEN_OUTPUTS = "between two outputs"
    ANY = "random moments"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`prepare` runs before the submission; `arrive` returns when the run has reached the step; `release`
    runs after the fault. These functions wait for observable conditions, not for fixed times."""

    prepare: Callable[[Trial], None]
    arrive: Callable[[Trial], None]
    release: Callable[[Trial], None]


def _nothing(_trial: Trial) -> None:
    pass


def is_stepping(progress: Json) -> bool:
    return bool(progress["status"] == "executing" and progress["current_node"] == "SandboxSlow")


def fetched(progress: Json) -> int:
    return sum(output["downloaded"] for output in progress["outputs"])


def _freeze_comfyui(trial: Trial) -> None:
    trial.tell(freeze_s=600)


def _thaw_comfyui(trial: Trial) -> None:
    trial.tell(freeze_s=0.001)


def _until_connected(trial: Trial) -> None:
    trial.until(lambda p: p["phase"] == "connecting")
    wait_until(lambda: trial.sshd.connection_count() > 0, 20, "no client connects")


def _give_large_input(trial: Trial) -> None:
    image = trial.directory / "input.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(image)
    with image.open("ab") as file:
        file.write(trial.directory.name.encode() * (UPLOAD_BYTES // len(trial.directory.name)))
    trial.fields = {"input_images": [str(image)], "comfyui_input_dir": str(trial.sandbox.input_dir)}


def _until_part_of_input_is_there(trial: Trial) -> None:
    wait_until(lambda: any(trial.sandbox.input_dir.iterdir()), 20, "no input arrives")


def _lose_the_answer(trial: Trial) -> None:
    """ComfyUI accepts the prompt, but the server gets no response, and cannot find the prompt before the
    fault."""
    dropped = {"path": "/prompt", "method": "POST", "mode": "drop"}
    silent = {"path": "/queue", "mode": "500", "times": 1_000_000}
    trial.tell(hold=True, answers=[dropped, silent])


def _until_unanswered(trial: Trial) -> None:
    trial.until(lambda p: p["prompt_id"] and p["phase"] == "waiting")


def _answer(trial: Trial) -> None:
    trial.tell(hold=False, answers=[])


def _hold(trial: Trial) -> None:
    trial.tell(hold=True)


def _until_queued(trial: Trial) -> None:
    trial.until(lambda p: p["queue_position"] is not None)


def _let_go(trial: Trial) -> None:
    trial.tell(hold=False)


def _slow_down(trial: Trial) -> None:
    trial.tell(step_delay_s=STEP_DELAY_S)


def speed_up(trial: Trial) -> None:
    trial.tell(step_delay_s=0.0)


def _until_executing(trial: Trial) -> None:
    trial.until(is_stepping)


def _finish_with_large_files(trial: Trial) -> None:
    """Enlarges the files that were saved before the last node, then lets ComfyUI finish."""
    trial.until(is_stepping)
    trial.fatten(LARGE_BYTES)
    speed_up(trial)


def _until_part_is_here(trial: Trial) -> None:
    _finish_with_large_files(trial)

    def is_partly_here() -> bool:
        parts = list(trial.server.output_dir.glob(".*"))
        return any(0 < _size(part) < LARGE_BYTES for part in parts)

    trial.until(lambda _progress: is_partly_here())


def _until_some_are_here(trial: Trial) -> None:
    _finish_with_large_files(trial)
    trial.until(lambda p: 0 < fetched(p) < OUTPUTS)


def _size(path: object) -> int:
    try:
        return path.stat().st_size  # type: ignore[attr-defined, no-any-return]
    except FileNotFoundError:
        return 0


SCENES = {
    Step.CONTACT: Scene(prepare=_freeze_comfyui, arrive=_until_connected, release=_thaw_comfyui),
    Step.UPLOADING: Scene(prepare=_give_large_input, arrive=_until_part_of_input_is_there, release=_nothing),
    Step.UNANSWERED: Scene(prepare=_lose_the_answer, arrive=_until_unanswered, release=_answer),
    Step.QUEUED: Scene(prepare=_hold, arrive=_until_queued, release=_let_go),
    Step.EXECUTING: Scene(prepare=_slow_down, arrive=_until_executing, release=speed_up),
    Step.DOWNLOADING: Scene(prepare=_slow_down, arrive=_until_part_is_here, release=_nothing),
    Step.BETWEEN_OUTPUTS: Scene(prepare=_slow_down, arrive=_until_some_are_here, release=_nothing),
    Step.ANY: Scene(prepare=_nothing, arrive=_nothing, release=_nothing),
}
