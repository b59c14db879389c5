"""The cipher chacha20-poly1305@openssh.com, which paramiko does not have.

Packetizer      paramiko's packetizer with this cipher; all other ciphers are paramiko's own
CIPHER          entry of the cipher in the table of a transport

How it works: paramiko's packetizer leaves packets as they are while no cipher is set. This class seals the
finished packet before paramiko writes it, and opens a packet before paramiko reads it. The format is that of
OpenSSH's PROTOCOL.chacha20poly1305: one key for the length, one for the rest; the nonce is the number of the
packet; the tag covers both.
"""

import os
import struct
from typing import Any

import paramiko
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305
from paramiko.packet import Packetizer as PlainPacketizer

NAME = "chacha20-poly1305@openssh.com"
KEY_BYTES, LENGTH_BYTES, TAG_BYTES, BLOCK_BYTES = 32, 4, 16, 8


class SealedPackets:
    """Cipher of one direction."""

    def __init__(self, keys: bytes) -> None:
        self._key, self._length_key = keys[:KEY_BYTES], keys[KEY_BYTES:]

    def seal(self, number: int, packet: bytes) -> bytes:
        """Encrypts a packet, which starts with its length, and adds the tag."""
        sealed = _apply(self._length_key, number, packet[:LENGTH_BYTES]) + _apply(
            self._key, number, packet[LENGTH_BYTES:], block=1
        )
        return sealed + Poly1305.generate_tag(self._tag_key(number), sealed)

    def length(self, number: int, sealed_length: bytes) -> bytes:
        return _apply(self._length_key, number, sealed_length)

    def open(self, number: int, sealed: bytes, tag: bytes) -> bytes:
        """Returns the packet after its length. Raises: paramiko.SSHException if it was changed."""
        try:
            Poly1305.verify_tag(self._tag_key(number), sealed, tag)
        except InvalidSignature as error:
            raise paramiko.SSHException("Mismatched MAC") from error
        return _apply(self._key, number, sealed[LENGTH_BYTES:], block=1)

    def _tag_key(self, number: int) -> bytes:
        return _apply(self._key, number, bytes(KEY_BYTES))


def _apply(key: bytes, number: int, data: bytes, *, block: int = 0) -> bytes:
    """Encrypts or decrypts. `block` is the number of the first block of the key stream."""
    nonce = struct.pack("<Q", block) + struct.pack(">Q", number)
    return Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(data)


CIPHER = {
    "class": SealedPackets,
    "block-size": BLOCK_BYTES,
    "iv-size": 0,
    "key-size": 2 * KEY_BYTES,
    "is_aead": True,
}
_NO_CIPHER = {"block_engine": None, "mac_engine": None, "mac_size": 0, "mac_key": b""}


class Packetizer(PlainPacketizer):
    """Reads and writes the packets of one transport."""

    _outbound: SealedPackets | None = None
    _inbound: SealedPackets | None = None
    _opened = b""

    def set_outbound_cipher(self, **settings: Any) -> None:  # type: ignore[override]
        engine = settings["block_engine"]
        self._outbound = engine if isinstance(engine, SealedPackets) else None
        plain = {**_NO_CIPHER, "block_size": BLOCK_BYTES}
        super().set_outbound_cipher(**(plain if self._outbound else settings))

    def set_inbound_cipher(self, **settings: Any) -> None:  # type: ignore[override]
        engine = settings["block_engine"]
        self._inbound = engine if isinstance(engine, SealedPackets) else None
        # paramiko then reads the length first, and nothing with it
        plain = {**_NO_CIPHER, "block_size": LENGTH_BYTES}
        super().set_inbound_cipher(**(plain if self._inbound else settings))

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if self._inbound is None:
            return super().read_all(n, check_rekey)
        if not self._opened:
            self._opened = self._read_packet(self._inbound, check_rekey)
        data, self._opened = self._opened[:n], self._opened[n:]
        return data

    def _read_packet(self, cipher: SealedPackets, check_rekey: bool) -> bytes:
        number = self._packet_number("in")
        sealed_length = super().read_all(LENGTH_BYTES, check_rekey)
        length = cipher.length(number, sealed_length)
        rest = super().read_all(int.from_bytes(length) + TAG_BYTES)
        return length + cipher.open(number, sealed_length + rest[:-TAG_BYTES], rest[-TAG_BYTES:])

    def _build_packet(self, payload: bytes) -> bytes:
        """Adds length and padding; paramiko calls it under the lock of the sender. The length itself is not
        part of the padded blocks."""
        if self._outbound is None:
            return super()._build_packet(payload)  # type: ignore[misc,no-any-return]
        padding = 4 + -(len(payload) + 5) % BLOCK_BYTES
        packet = struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + os.urandom(padding)
        return self._outbound.seal(self._packet_number("out"), packet)

    def _packet_number(self, direction: str) -> int:
        number: int = getattr(self, f"_Packetizer__sequence_number_{direction}")
        return number
