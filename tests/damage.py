"""Damages of a file by a disk: a flipped bit, a changed byte, a cut, zeros in place of a block."""

import random


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The same for the same state of `chance`, and never what it was."""
    assert content
    at = chance.randrange(len(content))
    while True:
        match chance.randrange(4):
            case 0:
                spoiled = _with_byte(content, at, content[at] ^ (1 << chance.randrange(8)))
            case 1:
                spoiled = _with_byte(content, at, chance.randrange(256))
            case 2:
                spoiled = content[:at]
            case _:
                length = chance.randint(1, max(1, len(content) - at))
                spoiled = content[:at] + bytes(length) + content[at + length :]
        if spoiled != content:
            return spoiled


def _with_byte(content: bytes, at: int, byte: int) -> bytes:
    return content[:at] + bytes([byte]) + content[at + 1 :]
