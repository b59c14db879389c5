"""Limits on what one instance may send, and the record of an instance that broke one.

The bytes of an instance are not trusted: a rented machine can be hostile, or only broken. Every answer is
bounded by its bytes, by the number of JSON values that it would become, and by the time it takes; every
websocket message by its bytes. An instance that breaks a limit raises LimitExceeded, and is not asked again
for a while.
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
"""Answers of fixed content (`/prompt`, `/system_stats`, `/upload/image`): a few KB; refusals of a prompt and
the log have more."""
MOST_VALUES = 1_000_000
"""JSON values of one answer or message. Each takes up to 120 bytes of memory, however short it is written."""
BYTES_WORTH_COUNTING = 256 * 1024
REMEMBERED_S = 60.0
MOST_INSTANCES = 1000
"""Whose breaches are remembered."""


@dataclass(frozen=True, kw_only=True)
class InstanceLimits:
    """`answer_bytes` bounds the routes whose answers grow with the machine (`/object_info`, `/queue`,
    `/history`); `answer_s` the time from a request to the last byte of its answer; `stream_bytes_per_s` is
    the slowest average rate of a file."""

    answer_bytes: int = 64 * MB
    answer_s: float = 120.0
    message_bytes: int = 32 * MB
    values: int = MOST_VALUES
    stream_bytes_per_s: float = 256.0

    def of(self, path: str) -> int:
        """Most bytes of the answer to a request of that path."""
        is_large = path.startswith(("/object_info", "/queue", "/history"))
        return self.answer_bytes if is_large else min(SMALL_ANSWER_BYTES, self.answer_bytes)


class LimitBreaches:
    """The latest broken limit of one instance. May be used from any thread."""

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
    """Those of each instance, by a key of the caller's: they outlive its connection, which an instance that
    floods may lose. May be used from any thread."""

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
    """`where`: as "in answer to GET /queue"."""
    return _breach(f"sends more than {_size(most_bytes)} {where}", setting)


def too_large_message(most_bytes: int) -> LimitExceeded:
    return _breach(f"sends a websocket message of more than {_size(most_bytes)}", "LARGEST_MESSAGE_MB")


def too_slow_message(seconds: float) -> LimitExceeded:
    return _breach(f"does not come to an end of a large websocket message within {seconds:.0f} s", None)


def too_many_values(where: str, most: int) -> LimitExceeded:
    return _breach(f"sends more than {most} JSON values {where}", None)


def too_many_outputs(most: int) -> LimitExceeded:
    return _breach(f"names more than {most} outputs of one prompt", None)


def too_slow(what: str, seconds: float) -> LimitExceeded:
    return _breach(
        f"does not come to an end of its answer to {what} within {seconds:.0f} s", "ANSWER_TIMEOUT_S"
    )


def too_slow_file() -> LimitExceeded:
    return _breach("sends a file as slowly as if it were never to end", None)


def compressed_answer(what: str, encoding: str) -> LimitExceeded:
    return _breach(f"compresses its answer to {what} ({shown(encoding)}), which was not asked for", None)


def _breach(what: str, setting: str | None) -> LimitExceeded:
    raised = f", or raise COMFYUI_WORKFLOW_{setting} if you trust it" if setting else ""
    return LimitExceeded(
        f"ComfyUI on the instance {what}: it is not asked any more for now. Restart it there{raised}"
    )


def value_count(content: bytes) -> int:
    """An upper bound of the JSON values in it, without reading it as JSON: commas in texts count too."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def _size(count: int) -> str:
    return f"{count // MB} MB" if count >= MB else f"{count // 1024} KB"
