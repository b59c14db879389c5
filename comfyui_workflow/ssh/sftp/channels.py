"""Pool of SFTP sessions on one transport. Each session is leased to one thread at a time.

SftpChannels(transport, label, ...)    opens the first channel; a thread starts SFTP on it
    lease(is_transfer=..., while_waiting=...) -> context manager yielding an SftpSession
    refusal(limit_s) -> str            what the machine printed in place of SFTP; empty if SFTP works
    round_trip_s                       measured when the first channel was opened
    transfers_at_once, is_far

The first session also makes sshd switch Nagle's algorithm off for the whole connection. One session is
reserved for operations other than transfers, so that a small request does not wait for a large file. If the
SSH server has no SFTP, every lease raises RemoteFileError.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paramiko
from paramiko.sftp import SFTPError

from comfyui_workflow.errors import RemoteFileError
from comfyui_workflow.parsing.untrusted import spoken
from comfyui_workflow.ssh.sftp.download import MOST_IN_FLIGHT_BYTES
from comfyui_workflow.ssh.sftp.session import SftpSession
from comfyui_workflow.ssh.sftp.start import MOST_TEXT_BYTES, start_client

_LOGGER = logging.getLogger(__name__)

# sshd allows ten sessions (MaxSessions). With a short round trip, more than four copying threads slow each
# other down; with a long one they mostly wait.
MOST_CHANNELS_NEAR = 5
MOST_CHANNELS_FAR = 9
FAR_S = 0.02  # round trip in seconds above which an instance counts as far
# A waiting thread calls `while_waiting` at this interval, because a CancelToken cannot wake it. The same
# holds for reads in `session`.
WAKE_UP_S = 0.5

REST_OF_TEXT_S = 0.2

# SSH window of a channel. Each transfer limits the bytes in flight by the number of its read requests.
WINDOW_BYTES = 2 * MOST_IN_FLIGHT_BYTES


class SftpChannels:
    """See the module. Thread-safe."""

    def __init__(
        self,
        transport: paramiko.Transport,
        label: str,
        *,
        on_session: Callable[[], None],
        open_timeout_s: float,
        silence_timeout_s: float,
    ) -> None:
        """`on_session` is called once, after the first session has started, in a thread of its own.

        Raises: paramiko.SSHException, EOFError or OSError if the connection is lost."""
        self._transport = transport
        self._label = label
        self._on_session = on_session
        self._open_timeout_s = open_timeout_s
        self._silence_timeout_s = silence_timeout_s
        self._changed = threading.Condition()
        self._transfer_count = 0
        self._open_count = 0
        self._free: list[SftpSession] = []
        self._is_starting = False
        self._has_sftp = True
        self._is_silent = False
        self._printed = bytearray()
        before_s = time.monotonic()
        self._open_first_channel()
        self.round_trip_s = time.monotonic() - before_s
        self._max_channels = MOST_CHANNELS_FAR if self.is_far else MOST_CHANNELS_NEAR

    @property
    def is_connected(self) -> bool:
        return self._transport.is_active()

    @property
    def transfers_at_once(self) -> int:
        return max(1, self._max_channels - 1)

    @property
    def is_far(self) -> bool:
        return self.round_trip_s > FAR_S

    def refusal(self, limit_s: float) -> str:
        """Waits at most `limit_s` for the first text, and a moment for the rest of it."""
        with self._changed:
            self._changed.wait_for(lambda: self._printed or not self._is_starting, limit_s)
            self._changed.wait_for(lambda: not self._is_starting, min(limit_s, REST_OF_TEXT_S))
            return spoken(bytes(self._printed))

    @contextmanager
    def lease(
        self, *, is_transfer: bool = False, while_waiting: Callable[[], None] | None = None
    ) -> Iterator[SftpSession]:
        """Leases a session. `while_waiting` is called twice a second while all sessions are busy, and may
        raise.

        Raises: RemoteFileError if the machine has no SFTP; TimeoutError if SFTP does not respond;
        paramiko.SSHException, EOFError or OSError if the connection is lost.
        """
        session = self._acquire(is_transfer, while_waiting or _noop)
        is_usable = False
        try:
            yield session
            is_usable = True
        except (RemoteFileError, FileNotFoundError, PermissionError):
            session.abandon_all()  # the server responds, so the session is fine
            is_usable = True
            raise
        finally:
            self._release(session, is_transfer, is_usable)

    def _open_first_channel(self) -> None:
        """Opens the first channel, which takes one round trip. The two more round trips that start a session
        are made by a thread, so the caller does not wait for them."""
        try:
            channel = self._open_channel()
        except paramiko.SSHException as error:
            if not self._is_refusal(error):
                raise
            self._has_sftp = False
            return
        self._open_count, self._is_starting = 1, True
        threading.Thread(
            target=self._start_first_session, args=(channel,), name="first SFTP", daemon=True
        ).start()

    def _start_first_session(self, channel: paramiko.Channel) -> None:
        session: SftpSession | None = None
        try:
            session = self._start_session(channel)
            self._on_session()
        except TimeoutError:
            _LOGGER.info("%s offers SFTP, but does not respond", self._label)
            self._is_silent = True
        except (paramiko.SSHException, SFTPError, EOFError, OSError):
            self._has_sftp = not self.is_connected
        with self._changed:
            if session:
                self._printed.clear()
                self._free.append(session)
            else:
                self._open_count = 0
            self._is_starting = False
            self._changed.notify_all()

    def _acquire(self, is_transfer: bool, while_waiting: Callable[[], None]) -> SftpSession:
        while True:
            with self._changed:
                if not self._has_sftp:
                    printed = spoken(bytes(self._printed))
                    reason = f'. It says: "{printed}"' if printed else "."
                    raise RemoteFileError(f"{self._label} offers no SFTP{reason}")
                if self._is_silent:
                    raise TimeoutError
                if self._is_available(is_transfer):
                    self._transfer_count += is_transfer
                    session = self._free.pop() if self._free else None
                    self._open_count += session is None
                    break
                self._changed.wait(WAKE_UP_S)
            while_waiting()
            if not self._transport.is_active():
                raise EOFError
        return session or self._open_another(is_transfer, while_waiting)

    def _is_available(self, is_transfer: bool) -> bool:
        if self._is_starting or (is_transfer and self._transfer_count >= self.transfers_at_once):
            return False
        return bool(self._free) or self._open_count < self._max_channels

    def _open_another(self, is_transfer: bool, while_waiting: Callable[[], None]) -> SftpSession:
        try:
            return self._open()
        except BaseException as error:
            with self._changed:
                self._open_count -= 1
                self._transfer_count -= is_transfer
                is_limit_lower = self._open_count > 0 and self._is_refusal(error)
                if is_limit_lower:
                    self._max_channels = self._open_count
                self._changed.notify_all()
            if not is_limit_lower:
                raise
        return self._acquire(is_transfer, while_waiting)

    def _is_refusal(self, error: BaseException) -> bool:
        """True if the server refused a channel: it allows fewer sessions than expected.

        Not only ChannelException: if two threads are refused at once, paramiko gives the reason to only one.
        """
        is_timeout = "timeout" in str(error).lower()
        return isinstance(error, paramiko.SSHException) and self.is_connected and not is_timeout

    def _open(self) -> SftpSession:
        return self._start_session(self._open_channel())

    def _open_channel(self) -> paramiko.Channel:
        channel = self._transport.open_session(window_size=WINDOW_BYTES, timeout=self._open_timeout_s)
        channel.settimeout(self._silence_timeout_s)
        return channel

    def _start_session(self, channel: paramiko.Channel) -> SftpSession:
        """Starts SFTP on a channel.

        paramiko waits for the server's response without a timeout. If there is no SFTP, it stops waiting only
        when the channel is closed. So a timer closes the channel.

        Raises: TimeoutError if the server does not respond in time; paramiko.SSHException, EOFError."""
        deadline = threading.Timer(self._silence_timeout_s, channel.close)
        deadline.daemon = True
        began_s = time.monotonic()
        deadline.start()
        try:
            client = start_client(channel, self._keep_printed)
        except (paramiko.SSHException, EOFError) as error:
            if time.monotonic() - began_s >= self._silence_timeout_s and self.is_connected:
                raise TimeoutError from error
            raise
        finally:
            deadline.cancel()
        return SftpSession(client, self._silence_timeout_s)

    def _keep_printed(self, output: bytes) -> None:
        with self._changed:
            if self._is_starting:
                self._printed += output[: MOST_TEXT_BYTES - len(self._printed)]
                self._changed.notify_all()

    def _release(self, session: SftpSession, is_transfer: bool, is_usable: bool) -> None:
        session.on_wait = _noop
        if not is_usable:
            session.close()
        with self._changed:
            self._transfer_count -= is_transfer
            if is_usable:
                self._free.append(session)
            else:
                self._open_count -= 1
            self._changed.notify_all()


def _noop() -> None:
    pass
