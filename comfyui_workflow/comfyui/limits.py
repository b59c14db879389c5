"""Limits on what one instance may send, and the record of exceeded limits.

How it works. The data of an instance is not trusted: a rented machine can be hostile, or just broken. Every
response is limited in bytes, in the number of JSON values that it would become, and in time; every websocket
message in bytes. Exceeding a limit raises LimitExceeded, and the instance gets no requests for a while
(REMEMBERED_S).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from comfyui_workflow.errors import LimitExceeded
from comfyui_workflow.parsing.untrusted import shown

MB = 1024 * 1024
SMALL_ANSWER_BYTES = 4 * MB
"""Limit for routes with small responses (`/prompt`, `/system_stats`, `/upload/image`): these have a few KB;
refusals of a prompt and the log have more."""
MOST_VALUES = 1_000_000
"""JSON values of one response or message. Each takes up to 120 bytes of memory, even if its text is short."""
BYTES_WORTH_COUNTING = 256 * 1024
REMEMBERED_S = 60.0
MOST_INSTANCES = 1000
"""Number of instances whose breaches are remembered."""


@dataclass(frozen=True, kw_only=True)
class InstanceLimits:
    """Limits for one instance. `answer_bytes` is for routes whose responses grow with the machine
    (`/object_info`, `/queue`, `/history`); `answer_s` is the time from a request to the last byte of its
    response; `stream_bytes_per_s` is the slowest average rate of a file."""

    answer_bytes: int = 64 * MB
    answer_s: float = 120.0
    message_bytes: int = 32 * MB
    values: int = MOST_VALUES
    stream_bytes_per_s: float = 256.0

    def of(self, path: str) -> int:
        """Returns the byte limit for the response to a request of that path."""
        is_large = path.startswith(("/object_info", "/queue", "/history"))
        return self.answer_bytes if is_large else min(SMALL_ANSWER_BYTES, self.answer_bytes)


class LimitBreaches:
    """The last exceeded limit of one instance. May be used from any thread."""

    def __init__(
        self, remembered_s: float = REMEMBERED_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remembered_s = remembered_s
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: tuple[str, float] | None = None

    def record(self, error: LimitExceeded) -> LimitExceeded:
        with self._lock:
            self._latest = (str(error), self._clock())
        return error

    def refuse(self) -> None:
        """Raises: LimitExceeded, for a minute after a breach."""
        with self._lock:
            if self._latest is None:
                return
            sentence, at_s = self._latest
            if self._clock() - at_s < self._remembered_s:
                raise LimitExceeded(sentence)
            self._latest = None


class KnownBreaches:
    """The breaches of each instance, by a key that the caller chooses. They outlive the connection, since an
    instance that floods may lose it. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: OrderedDict[Hashable, LimitBreaches] = OrderedDict()

    def of(self, key: Hashable) -> LimitBreaches:
        with self._lock:
            found = self._by_key.pop(key, None) or LimitBreaches()
            self._by_key[key] = found
            if len(self._by_key) > MOST_INSTANCES:
                self._by_key.popitem(last=False)
            return found


def too_many_bytes(where: str, most_bytes: int, setting: str = "LARGEST_ANSWER_MB") -> LimitExceeded:
    """`where` is a phrase like "in answer to GET /queue"."""
    return _breach(f"sends more than {_size(most_bytes)} {where}", setting)


def too_large_message(most_bytes: int) -> LimitExceeded:
    return _breach(f"sends a websocket message of more than {_size(most_bytes)}", "LARGEST_MESSAGE_MB")


def too_slow_message(seconds: float) -> LimitExceeded:
    return _breach(f"does not finish a large websocket message within {seconds:.0f} s", None)


def too_many_values(where: str, most: int) -> LimitExceeded:
    return _breach(f"sends more than {most} JSON values {where}", None)


def too_many_outputs(most: int) -> LimitExceeded:
    return _breach(f"names more than {most} outputs of one prompt", None)


def too_slow(what: str, seconds: float) -> LimitExceeded:
    return _breach(f"does not finish its answer to {what} within {seconds:.0f} s", "ANSWER_TIMEOUT_S")


def too_slow_file() -> LimitExceeded:
    return _breach("sends a file too slowly", None)


def compressed_answer(what: str, encoding: str) -> LimitExceeded:
    return _breach(
        f"compresses its answer to {what} ({shown(encoding)}), which this server did not ask for", None
    )


def _breach(what: str, setting: str | None) -> LimitExceeded:
    raised = f", or raise COMFYUI_WORKFLOW_{setting} if you trust it" if setting else ""
    return LimitExceeded(
        f"ComfyUI on the instance {what}: this server sends it no more requests for now. "
        f"Restart it there{raised}"
    )


def value_count(content: bytes) -> int:
    """Returns an upper bound of the number of JSON values, without parsing: commas inside texts are counted,
    too."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def _size(count: int) -> str:
    return f"{count // MB} MB" if count >= MB else f"{count // 1024} KB"
