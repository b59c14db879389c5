"""Simulated faults of the sandbox: the state behind POST /sandbox/faults."""

import time
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from comfyui_workflow.sandbox.versions import DEFAULT_VERSION, Version


class OutOfMemory(RuntimeError):
    """Imitation of torch's exception. It has torch's name, because clients see the name."""


OutOfMemory.__module__ = "torch"
OutOfMemory.__qualname__ = "OutOfMemoryError"


class WrongAnswer(BaseModel):
    """A wrong response to the next `times` requests of `path`, or of a path below it.

    500          an error of status 500; the request is not processed
    empty        a response without content; the request is not processed
    html, 203    an HTML page (203: with that status); the request is not processed
    redirect     a redirect to a page; the request is not processed
    half_json    the request is processed, then the response is cut in half
    drop         the request is processed, then the connection is closed without a response
    late         the connection is closed at once, and the request is processed `after_s` later: as if the
                 network had delayed a request whose sender has given up
    bomb         one gigabyte, compressed to one megabyte of gzip
    drip         an endless response, one byte at a time
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    mode: Literal["500", "html", "203", "redirect", "half_json", "empty", "drop", "late", "bomb", "drip"]
    times: int = Field(default=1, ge=1)
    method: str | None = None
    after_s: float = Field(default=3.0, ge=0)


class BadStorage(BaseModel):
    """Faults of the SFTP server.

    silent           "reads": reads and writes are never answered; "all": no request is answered
    claimed_bytes    reported size of every file
    endless_reads    every read returns data, also after the end of the file
    long_reads       every read returns one byte more than requested
    endless_listing  a directory listing never ends
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
    """All simulated faults. Every field can be changed at any time and takes effect at once.

    "Once" means that the field is reset after the fault has been triggered.

    step_delay_s         seconds added to every progress step and to every node
    fail_class           {class_type: message}: nodes of this class raise RuntimeError(message)
    out_of_memory_class  nodes of this class raise torch's OutOfMemoryError
    deaf_websockets      websockets stay open and answer pings, but receive no messages
    close_websockets     once: every websocket is aborted
    worker_dead          once: the next prompt stays running forever, and no other prompt is executed
    rename_outputs       {filename: {field: value}}: the history has these values for an output file
    prompt_delay_s       seconds between reading and queueing of a prompt, as if a large graph were validated
    answers              wrong HTTP responses, each for a number of requests
    restart              once: the port is closed for `down_s`; only input and output files are kept
    freeze_s             once: nothing is answered for this many seconds, not even a ping
    hold                 no prompt is started while this is set; prompts stay pending
    version              the version of ComfyUI to imitate: one of `Version`
    cut_ssh              once: every SSH connection is aborted
    refuse_ssh_s         once: new SSH connections are refused for this many seconds
    freeze_ssh_s         once: existing SSH connections stop answering for this many seconds; new ones work
    cut_ssh_after_bytes  every SSH connection is aborted after it has sent this many bytes to the client
    storage              faults of the SFTP server
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    step_delay_s: float = Field(default=0.0, ge=0)
    fail_class: dict[str, str] = Field(default_factory=dict)
    out_of_memory_class: str | None = None
    deaf_websockets: bool = False
    close_websockets: bool = False
    worker_dead: bool = False
    rename_outputs: dict[str, dict[str, str]] = Field(default_factory=dict)
    prompt_delay_s: float = Field(default=0.0, ge=0)
    answers: list[WrongAnswer] = Field(default_factory=list)
    restart: Restart | None = None
    freeze_s: float = Field(default=0.0, ge=0)
    hold: bool = False
    version: Version = DEFAULT_VERSION
    cut_ssh: bool = False
    refuse_ssh_s: float = Field(default=0.0, ge=0)
    freeze_ssh_s: float = Field(default=0.0, ge=0)
    cut_ssh_after_bytes: int | None = Field(default=None, gt=0)
    storage: BadStorage = Field(default_factory=BadStorage)


class SSHFaults(Protocol):
    """Interface of `SSHGate`, the proxy in front of the SSH server that simulates its faults."""

    def cut(self) -> None: ...
    def refuse(self, seconds: float) -> None: ...
    def freeze(self, seconds: float) -> None: ...
    def clear(self) -> None: ...
    def limit_bytes(self, byte_count: int | None) -> None: ...


class FaultBoard:
    """The active faults. They are changed on the event loop, and read from any thread."""

    def __init__(self) -> None:
        self.now = Faults()
        self._frozen_until = 0.0
        self.ssh_faults: SSHFaults | None = None

    @property
    def version(self) -> Version:
        return self.now.version

    @property
    def frozen_for_s(self) -> float:
        return max(0.0, self._frozen_until - time.monotonic())

    def change(self, changes: dict[str, Any]) -> None:
        """Sets the given faults and keeps the others. Raises: pydantic.ValidationError."""
        self.now = Faults.model_validate({**self.now.model_dump(), **changes})
        if self.now.freeze_s:
            self._frozen_until = time.monotonic() + self.now.freeze_s
            self.now.freeze_s = 0.0
        if self.ssh_faults:
            self._apply_ssh_faults(self.ssh_faults)

    def clear(self) -> None:
        self.now = Faults()
        self._frozen_until = 0.0
        if self.ssh_faults:
            self.ssh_faults.clear()

    def take_answer(self, method: str, path: str) -> WrongAnswer | None:
        """Returns the wrong response for this request, or None, and decrements its remaining number."""
        for answer in self.now.answers:
            is_below = path == answer.path or path.startswith(answer.path.rstrip("/") + "/")
            if is_below and answer.method in (None, method):
                answer.times -= 1
                if answer.times == 0:
                    self.now.answers.remove(answer)
                return answer
        return None

    def take_worker_death(self) -> bool:
        was_set, self.now.worker_dead = self.now.worker_dead, False
        return was_set

    def renamed(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Applies `rename_outputs` to the outputs of a prompt: {node_id: {key: [entry, ...]}}."""
        return {
            node_id: {key: [self._renamed(entry) for entry in entries] for key, entries in shown.items()}
            for node_id, shown in outputs.items()
        }

    def raise_for(self, class_type: str) -> None:
        """Raises the exception that is set for nodes of this class. Raises: RuntimeError, OutOfMemory."""
        if class_type == self.now.out_of_memory_class:
            raise OutOfMemory(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.64 GiB "
                "of which 1.20 GiB is free."
            )
        if class_type in self.now.fail_class:
            raise RuntimeError(self.now.fail_class[class_type])

    def _renamed(self, entry: Any) -> Any:
        override = self.now.rename_outputs.get(entry.get("filename", "")) if isinstance(entry, dict) else None
        return {**entry, **override} if override else entry

    def _apply_ssh_faults(self, ssh_faults: SSHFaults) -> None:
        wanted = self.now
        self.now = wanted.model_copy(update={"cut_ssh": False, "refuse_ssh_s": 0.0, "freeze_ssh_s": 0.0})
        ssh_faults.limit_bytes(wanted.cut_ssh_after_bytes)
        if wanted.refuse_ssh_s:
            ssh_faults.refuse(wanted.refuse_ssh_s)
        if wanted.freeze_ssh_s:
            ssh_faults.freeze(wanted.freeze_ssh_s)
        if wanted.cut_ssh:
            ssh_faults.cut()
