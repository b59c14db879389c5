"""Noticing a peer that froze: who stays silent although asked is closed.

watch(transport, wire, *, interval_s=5.0, silence_limit_s=15.0)

A connection that hears nothing for `interval_s` asks for an answer; `silence_limit_s` of silence closes it,
which wakes up everybody who waits on it. TCP alone does not notice: a proxy or a kernel acknowledges for a
frozen peer.

The asking is done by each transport's own reading thread: sending to a frozen peer may block, and then blocks
that thread alone. One supervisor thread for the process counts the silence and closes, which never blocks. It
starts with the first connection that is watched and ends with the last.
"""

import threading
import time

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from comfyui_workflow.ssh.transport_socket import TransportSocket

LONGEST_TICK_S = 1.0


class KeepaliveWatch:
    """One connection under watch."""

    def __init__(
        self,
        transport: paramiko.Transport,
        wire: TransportSocket,
        *,
        interval_s: float,
        silence_limit_s: float,
    ) -> None:
        self._transport = transport
        self._wire = wire
        self._interval_s = interval_s
        self._silence_limit_s = silence_limit_s
        self._silence_s = 0.0
        self._heard_count = wire.heard_count
        self._asked_at = 0.0
        self._asked_after = -1
        self._quiet_since = time.monotonic()
        wire.on_quiet = self._ask_when_quiet

    @property
    def tick_s(self) -> float:
        return min(LONGEST_TICK_S, self._silence_limit_s / 15)

    @property
    def is_over(self) -> bool:
        return not self._transport.is_active()

    def count_silence(self, elapsed_s: float) -> None:
        """By the supervisor. Time in which this whole process was stopped is not the peer's silence."""
        if self._heard_count != self._wire.heard_count:
            self._heard_count = self._wire.heard_count
            self._silence_s = 0.0
            return
        self._silence_s += min(elapsed_s, 2 * self.tick_s)
        if self._silence_s >= self._silence_limit_s:
            self._transport.close()

    def _ask_when_quiet(self) -> None:
        """By the reading thread, several times a second while nothing arrives."""
        now = time.monotonic()
        if self._asked_after != self._wire.heard_count:
            self._asked_after = self._wire.heard_count
            self._quiet_since = now
        if now - max(self._quiet_since, self._asked_at) >= self._interval_s and self._ask():
            self._asked_at = now

    def _ask(self) -> bool:
        """Sends a request that every SSH server must answer, unless keys or other data are under way already.

        What paramiko's own keepalive sends wants no answer; what waits for an answer would block this thread.
        """
        transport = self._transport
        if not transport.clear_to_send.is_set() or not transport.clear_to_send_lock.acquire(blocking=False):
            return False
        try:
            if transport.clear_to_send.is_set():
                transport.packetizer.send_message(_request_for_an_answer())
                return True
        finally:
            transport.clear_to_send_lock.release()
        return False


class Supervisor:
    """Its thread runs while there is something to watch."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: list[KeepaliveWatch] = []
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def add(self, watch: KeepaliveWatch) -> None:
        with self._changed:
            self._watches.append(watch)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="SSH liveness", daemon=True)
                self._thread.start()

    def recheck(self) -> None:
        """For who just closed a connection: its watch ends now, not at the next tick."""
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        before = time.monotonic()
        while watches := self._wait_for_tick():
            now = time.monotonic()
            for watch in watches:
                watch.count_silence(now - before)
            before = now

    def _wait_for_tick(self) -> list[KeepaliveWatch]:
        with self._changed:
            self._drop_those_over()
            if self._watches:
                self._changed.wait(min(watch.tick_s for watch in self._watches))
                self._drop_those_over()
            if not self._watches:
                self._thread = None
            return list(self._watches)

    def _drop_those_over(self) -> None:
        self._watches = [watch for watch in self._watches if not watch.is_over]


supervisor = Supervisor()


def watch(
    transport: paramiko.Transport,
    wire: TransportSocket,
    *,
    interval_s: float = 5.0,
    silence_limit_s: float = 15.0,
) -> None:
    """From now on until the transport is closed. Call it once the transport is authenticated."""
    supervisor.add(KeepaliveWatch(transport, wire, interval_s=interval_s, silence_limit_s=silence_limit_s))


def _request_for_an_answer() -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(cMSG_GLOBAL_REQUEST)
    message.add_string("keepalive@openssh.com")
    message.add_boolean(True)
    return message
