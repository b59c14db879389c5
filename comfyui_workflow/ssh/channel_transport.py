"""Connects an event loop to a port of the instance: an asyncio transport over a channel of the SSH transport.

connect_channel(transport, destination, protocol_factory) -> protocol

How it works. The tunnel has a local socket and a thread for each connection, and passes every packet through
both. Here, paramiko's reading thread wakes the event loop, which reads the buffer of the channel. The event
loop also sends, if that cannot block: no other thread is sending, and the socket and the window have space.
Otherwise the data is queued, and a thread of the channel sends it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import paramiko
from paramiko.buffered_pipe import PipeTimeout
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_WINDOW_ADJUST

from comfyui_workflow.ssh.tunnel import READ_ALL_BYTES

MOST_AT_ONCE_BYTES = 16 * 1024
"""A socket that is writable has at least this much space."""
PAUSE_ABOVE_BYTES = 256 * 1024
SOURCE = ("127.0.0.1", 0)
BROKEN = (paramiko.SSHException, EOFError, OSError)

Item = bytes | paramiko.Message
"""Data for the port of the instance, or a message of the SSH transport. Empty data closes the channel."""

ClientProtocol = TypeVar("ClientProtocol", bound=asyncio.Protocol)


async def connect_channel(
    transport: Any, destination: tuple[str, int], protocol_factory: Callable[[], ClientProtocol]
) -> ClientProtocol:
    """Opens a channel to an address as seen from the instance, and connects the protocol to it. Raises:
    paramiko.SSHException; EOFError; OSError."""
    opening = _Opening(transport, destination)
    channel_transport = ChannelTransport(opening.channel)
    channel_transport.send_message(opening.request)
    try:
        await asyncio.shield(opening.over)
    except asyncio.CancelledError:
        opening.over.add_done_callback(lambda _: channel_transport.abort())
        raise
    if opening.error is not None:
        raise opening.error
    protocol = protocol_factory()
    channel_transport.start(protocol)
    return protocol


class _Opening:
    """A channel for which a request is to be sent. paramiko's own `open_channel` needs a thread that waits.

    It takes the place of two of paramiko's events: that of the response, and that of the channel's buffer,
    which is set when the transport ends."""

    def __init__(self, transport: Any, destination: tuple[str, int]) -> None:
        """Raises: paramiko.SSHException if the transport has ended."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.error: Exception | None = None
        """Why the channel is not open, once `over` is done."""
        self.channel = _new_channel(transport, self)
        self.channel.in_buffer.set_event(self)
        self.request = _message(
            cMSG_CHANNEL_OPEN,
            "direct-tcpip",
            self.channel.chanid,
            self.channel.in_window_size,
            self.channel.in_max_packet_size,
            *destination,
            *SOURCE,
        )
        if not transport.active:
            raise paramiko.SSHException("SSH session not active")

    def set(self) -> None:
        error: Exception | None = None
        if not self.channel.active or self.channel.closed:
            error = self._transport.saved_exception or paramiko.SSHException("Unable to open channel.")
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._resolve, error)

    def clear(self) -> None:
        """The buffer is empty at first."""

    def is_set(self) -> bool:
        return self.over.done()

    def _resolve(self, error: Exception | None) -> None:
        if not self.over.done():
            self.error = error
            self.over.set_result(None)


def _new_channel(transport: Any, answered: _Opening) -> Any:
    """Registers a channel; paramiko calls `answered.set()` when the instance has opened or refused it."""
    with transport.lock:
        number = transport._next_channel()
        channel = cast(Any, paramiko.Channel(number))
        transport._channels.put(number, channel)
        transport.channel_events[number] = answered
        transport.channels_seen[number] = True
        channel._set_transport(transport)
        channel._set_window(transport._sanitize_window_size(None), transport._sanitize_packet_size(None))
        return channel


class ChannelTransport(asyncio.Transport):
    """Belongs to the event loop, except `set` and `clear`, which paramiko calls, and `_send_queued`, which a
    thread runs while data is queued."""

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._protocol = asyncio.Protocol()  # until the channel is open
        self._has_data = False
        self._is_reading = True
        self._is_closing = False
        self._is_paused = False
        self._lock = threading.Lock()
        """Guards `_queue`, and that a thread sends while it has items. Not held while data is sent."""
        self._queue: deque[Item] = deque()
        self._is_sender_running = False

    def start(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        self._protocol.connection_made(self)
        self._channel.in_buffer.set_event(self)

    # --- the event of the channel's buffer, see `BufferedPipe.set_event`

    def set(self) -> None:
        if not self._has_data:
            self._has_data = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._read)

    def clear(self) -> None:
        self._has_data = False

    # --- reading

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        if not self.is_reading():
            return
        try:
            data = self._channel.in_buffer.read(READ_ALL_BYTES, 0.0)
        except PipeTimeout:
            self._expect_data()
            return
        if not data:
            self._protocol.eof_received()
            self.close()
            return
        self._give_window(self._channel._check_add_window(len(data)))
        self._protocol.data_received(data)
        if self._has_data:  # the buffer was closed
            self._loop.call_soon(self._read)

    def _expect_data(self) -> None:
        """The buffer was empty: a message without data had set its event. It is set again for what came
        meanwhile."""
        self._has_data = False
        if len(self._channel.in_buffer) or self._channel.eof_received or self._channel.closed:
            self.set()

    def _give_window(self, size_bytes: int) -> None:
        """Tells the instance that it may send more. Never queued behind data: the instance may wait for this
        before it reads that data."""
        if size_bytes == 0:
            return
        message = _message(cMSG_CHANNEL_WINDOW_ADJUST, self._channel.remote_chanid, size_bytes)
        if not self._send_now(message):
            threading.Thread(target=self._send_item, args=(message,), name="window", daemon=True).start()

    # --- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._is_closing:
            self._send(bytes(data))

    def send_message(self, message: paramiko.Message) -> None:
        self._send(message)

    def get_write_buffer_size(self) -> int:
        with self._lock:
            return sum(len(item) for item in self._queue if isinstance(item, bytes))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """Closes the channel after everything that was written."""
        with self._lock:
            has_queued = bool(self._queue)
            if has_queued and not self._is_closing:
                self._queue.append(b"")
        if has_queued:
            self._lose()
        else:
            self.abort()

    def abort(self) -> None:
        """Closes the channel now. A thread that waits for space in the window is woken."""
        with self._lock:
            self._queue.clear()
        with self._channel.lock:
            messages = self._channel._close_internal()
        for message in filter(None, messages):
            self._send(message)
        self._lose()

    def _lose(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _send(self, item: Item) -> None:
        if not self._is_sender_running and self._send_now(item):
            return
        with self._lock:
            self._queue.append(item)
            if not self._is_sender_running:
                self._is_sender_running = True
                threading.Thread(target=self._send_queued, name="send to channel", daemon=True).start()
        if not self._is_paused and self.get_write_buffer_size() > PAUSE_ABOVE_BYTES:
            self._is_paused = True
            self._protocol.pause_writing()

    def _send_now(self, item: Item) -> bool:
        """Sends the item if that does not block. Returns False if it may block."""
        transport = self._channel.get_transport()
        if not transport.clear_to_send_lock.acquire(blocking=False):
            return False
        try:
            if not (transport.clear_to_send.is_set() and transport.sock.has_space()):
                return False
            if isinstance(item, paramiko.Message):
                transport.packetizer.send_message(item)
            elif self._take_window(len(item)):
                message = _message(cMSG_CHANNEL_DATA, self._channel.remote_chanid)
                message.add_string(item)
                transport.packetizer.send_message(message)
            else:
                return False
            return True
        except BROKEN:
            return True  # as in `_send_item`
        finally:
            transport.clear_to_send_lock.release()

    def _take_window(self, size_bytes: int) -> bool:
        """Returns False if the data does not fit into the window or into one message, or the channel is
        closed."""
        channel = self._channel
        with channel.lock:
            most_bytes = min(channel.out_window_size, channel.out_max_packet_size - 64, MOST_AT_ONCE_BYTES)
            if size_bytes > most_bytes or channel.closed:
                return False
            channel.out_window_size -= size_bytes
            return True

    def _send_queued(self) -> None:
        """Sends without a timeout: the client has timeouts of its own. An item stays in the queue while it is
        sent."""
        item: Item | None = None
        while True:
            with self._lock:
                if self._queue and self._queue[0] is item:
                    self._queue.popleft()
                if not self._queue:
                    self._is_sender_running = False
                    break
                item = self._queue[0]
            self._send_item(item)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._resume_writing)

    def _send_item(self, item: Item) -> None:
        with suppress(*BROKEN):  # the reading thread notices it too, and ends the channel
            if isinstance(item, paramiko.Message):
                self._channel.get_transport()._send_user_message(item)
            elif item:
                self._channel.sendall(item)
            else:
                self._channel.close()

    def _resume_writing(self) -> None:
        if self._is_paused and not self._is_closing and not self.get_write_buffer_size():
            self._is_paused = False
            self._protocol.resume_writing()


def _message(kind: bytes, *values: int | str) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(kind)
    for value in values:
        if isinstance(value, str):
            message.add_string(value)
        else:
            message.add_int(value)
    return message
