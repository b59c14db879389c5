"""Keepalive: closes SSH connections whose peer does not answer.

watch(transport, wire, *, interval_s=5.0, silence_limit_s=15.0)

How it works: a connection that has received nothing for `interval_s` sends a keepalive request. After
`silence_limit_s` without a received byte it is closed, which wakes up every thread that waits on it. TCP
alone does not detect a frozen peer, because a proxy or the kernel still acknowledges the packets.

The requests are sent by the reading thread of each transport: sending to a frozen peer may block, and then it
blocks only that thread. One supervisor thread of the process measures the silence and closes connections,
which never blocks. It starts with the first watched connection and ends with the last.
"""

import threading
import time

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from comfyui_workflow.ssh.transport_socket import TransportSocket

LONGEST_TICK_S = 1.0


class KeepaliveWatch:
    """Keepalive state of one connection."""

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
        self._supervisor_received_count = wire.received_count
        self._requested_at = 0.0
        self._reader_received_count = -1
        self._silent_since = time.monotonic()
        wire.on_recv_timeout = self._request_if_silent

    @property
    def tick_s(self) -> float:
        return min(LONGEST_TICK_S, self._silence_limit_s / 15)

    @property
    def is_closed(self) -> bool:
        return not self._transport.is_active()

    def count_silence(self, elapsed_s: float) -> None:
        """Called by the supervisor. At most two ticks of `elapsed_s` count: time in which this whole process
        was stopped is not silence of the peer."""
        if self._supervisor_received_count != self._wire.received_count:
            self._supervisor_received_count = self._wire.received_count
            self._silence_s = 0.0
            return
        self._silence_s += min(elapsed_s, 2 * self.tick_s)
        if self._silence_s >= self._silence_limit_s:
            self._transport.close()

    def _request_if_silent(self) -> None:
        """Called by the reading thread several times a second while nothing is received."""
        now = time.monotonic()
        if self._reader_received_count != self._wire.received_count:
            self._reader_received_count = self._wire.received_count
            self._silent_since = now
        if now - max(self._silent_since, self._requested_at) >= self._interval_s and self._send_request():
            self._requested_at = now

    def _send_request(self) -> bool:
        """Sends a request that every SSH server must answer. Returns False if a key exchange or another send
        is in progress.

        paramiko's own keepalive requests no answer, and its methods that wait for an answer would block this
        thread.
        """
        transport = self._transport
        if not transport.clear_to_send.is_set() or not transport.clear_to_send_lock.acquire(blocking=False):
            return False
        try:
            if transport.clear_to_send.is_set():
                transport.packetizer.send_message(_keepalive_request())
                return True
        finally:
            transport.clear_to_send_lock.release()
        return False


class Supervisor:
    """Thread that closes silent connections. It runs while at least one connection is watched."""

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
        """Removes closed connections now instead of at the next tick."""
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
            self._remove_closed()
            if self._watches:
                self._changed.wait(min(watch.tick_s for watch in self._watches))
                self._remove_closed()
            if not self._watches:
                self._thread = None
            return list(self._watches)

    def _remove_closed(self) -> None:
        self._watches = [watch for watch in self._watches if not watch.is_closed]


supervisor = Supervisor()


def watch(
    transport: paramiko.Transport,
    wire: TransportSocket,
    *,
    interval_s: float = 5.0,
    silence_limit_s: float = 15.0,
) -> None:
    """Watches a transport until it is closed. Call this after the transport is authenticated."""
    supervisor.add(KeepaliveWatch(transport, wire, interval_s=interval_s, silence_limit_s=silence_limit_s))


def _keepalive_request() -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(cMSG_GLOBAL_REQUEST)
    message.add_string("keepalive@openssh.com")
    message.add_boolean(True)
    return message
