"""How the sandbox misbehaves when it is told to: the state behind POST /sandbox/faults."""

import time
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class OutOfMemory(RuntimeError):
    """What torch raises; it carries torch's name, since that is what clients see."""


OutOfMemory.__module__ = "torch"
OutOfMemory.__qualname__ = "OutOfMemoryError"


class Answer(BaseModel):
    """A wrong answer to requests of `path`, or below it, for the next `times` requests.

    "500", "html", "203" (a page), "redirect" (to one) and "empty" answer without doing the work; "half_json"
    and "drop" do it first, then cut the answer in half or close the connection without one. "bomb" is a
    gigabyte in a megabyte of gzip, "drip" a byte now and then for ever.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    mode: Literal["500", "html", "203", "redirect", "half_json", "empty", "drop", "bomb", "drip"]
    times: int = Field(default=1, ge=1)
    method: str | None = None


class BadStorage(BaseModel):
    """How the SFTP server misbehaves.

    silent           "reads": what is read or written is never answered; "all": nothing is
    claimed_bytes    so large every file is said to be
    endless_reads    every read brings bytes, wherever in the file it is
    long_reads       every read brings a byte more than was asked for
    endless_listing  a directory has no last entry
    """

    model_config = ConfigDict(extra="forbid")

    silent: Literal["no", "reads", "all"] = "no"
    claimed_bytes: int | None = None
    endless_reads: bool = False
    long_reads: bool = False
    endless_listing: bool = False


class Restart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    down_s: float = Field(default=0.5, ge=0)


class Faults(BaseModel):
    """Every field can be set at any time, and is read anew each time it matters.

    step_delay_s         added to every progress step and to every node
    fail_class           {class_type: message}: such a node raises RuntimeError(message)
    out_of_memory_class  such a node raises torch's OutOfMemoryError
    deaf_websockets      sockets stay open and answer pings, but nothing is sent to them
    close_websockets     once: every socket is cut
    worker_dead          once: the next prompt stays running for ever, and none follows it
    rename_outputs       {filename: {field: value}}: so history tells of a file, whatever it is called
    answers              wrong HTTP answers, each for a number of times
    restart              once: the port is closed for `down_s`, all but input and output files is forgotten
    freeze_s             once: nothing is answered for so long, not even a ping
    hold                 no prompt is started until it is cleared; they stay pending
    version              "old" behaves as 0.3.41
    cut_ssh              once: every SSH connection is cut
    refuse_ssh_s         once: new SSH connections are refused for so long
    freeze_ssh_s         once: the SSH connections there are stop answering for so long; new ones are served
    cut_ssh_after_bytes  every SSH connection is cut when it has brought so many bytes from here
    storage              how the SFTP server misbehaves
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    step_delay_s: float = Field(default=0.0, ge=0)
    fail_class: dict[str, str] = Field(default_factory=dict)
    out_of_memory_class: str | None = None
    deaf_websockets: bool = False
    close_websockets: bool = False
    worker_dead: bool = False
    rename_outputs: dict[str, dict[str, str]] = Field(default_factory=dict)
    answers: list[Answer] = Field(default_factory=list)
    restart: Restart | None = None
    freeze_s: float = Field(default=0.0, ge=0)
    hold: bool = False
    version: Literal["new", "old"] = "new"
    cut_ssh: bool = False
    refuse_ssh_s: float = Field(default=0.0, ge=0)
    freeze_ssh_s: float = Field(default=0.0, ge=0)
    cut_ssh_after_bytes: int | None = Field(default=None, gt=0)
    storage: BadStorage = Field(default_factory=BadStorage)


class SSHDoor(Protocol):
    """What stands in front of the SSH server: `SSHGate`."""

    def cut(self) -> None: ...
    def refuse(self, seconds: float) -> None: ...
    def freeze(self, seconds: float) -> None: ...
    def open_now(self) -> None: ...
    def carry_at_most(self, byte_count: int | None) -> None: ...


class FaultBoard:
    """The faults now in force. Changed on the event loop, read from any thread."""

    def __init__(self) -> None:
        self.now = Faults()
        self._frozen_until = 0.0
        self.ssh_door: SSHDoor | None = None

    @property
    def is_old(self) -> bool:
        return self.now.version == "old"

    @property
    def frozen_for_s(self) -> float:
        return max(0.0, self._frozen_until - time.monotonic())

    def change(self, changes: dict[str, Any]) -> None:
        """Set the named faults, leave the others. Raises: pydantic.ValidationError."""
        self.now = Faults.model_validate({**self.now.model_dump(), **changes})
        if self.now.freeze_s:
            self._frozen_until = time.monotonic() + self.now.freeze_s
            self.now.freeze_s = 0.0
        if self.ssh_door:
            self._move(self.ssh_door)

    def clear(self) -> None:
        self.now = Faults()
        self._frozen_until = 0.0
        if self.ssh_door:
            self.ssh_door.open_now()

    def take_answer(self, method: str, path: str) -> str | None:
        """The mode of the wrong answer that this request gets, and one time less of it."""
        for answer in self.now.answers:
            is_below = path == answer.path or path.startswith(answer.path.rstrip("/") + "/")
            if is_below and answer.method in (None, method):
                answer.times -= 1
                if answer.times == 0:
                    self.now.answers.remove(answer)
                return answer.mode
        return None

    def take_worker_death(self) -> bool:
        was_set, self.now.worker_dead = self.now.worker_dead, False
        return was_set

    def renamed(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """What history tells of the outputs of a prompt: {node_id: {key: [entry, ...]}}."""
        return {
            node_id: {key: [self._renamed(entry) for entry in entries] for key, entries in shown.items()}
            for node_id, shown in outputs.items()
        }

    def raise_for(self, class_type: str) -> None:
        """What a node of this class is told to raise. Raises: RuntimeError, OutOfMemory."""
        if class_type == self.now.out_of_memory_class:
            raise OutOfMemory(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.64 GiB "
                "of which 1.20 GiB is free."
            )
        if class_type in self.now.fail_class:
            raise RuntimeError(self.now.fail_class[class_type])

    def _renamed(self, entry: Any) -> Any:
        lie = self.now.rename_outputs.get(entry.get("filename", "")) if isinstance(entry, dict) else None
        return {**entry, **lie} if lie else entry

    def _move(self, door: SSHDoor) -> None:
        wanted = self.now
        self.now = wanted.model_copy(update={"cut_ssh": False, "refuse_ssh_s": 0.0, "freeze_ssh_s": 0.0})
        door.carry_at_most(wanted.cut_ssh_after_bytes)
        if wanted.refuse_ssh_s:
            door.refuse(wanted.refuse_ssh_s)
        if wanted.freeze_ssh_s:
            door.freeze(wanted.freeze_ssh_s)
        if wanted.cut_ssh:
            door.cut()
