"""Format of every JSON record on disk: a version, a checksum, and paths relative to the data directory.

    {"version":1,"crc32":"89abcdef",<the members of the record>}

How it works: the checksum covers the version and everything after the checksum. So every damaged byte is
detected, also if the JSON still parses. A record without this head was written by an earlier release, and is
read as it is.

In a string that begins with the path of the data directory, a mark replaces that path. So the paths stay
right if the data directory is moved.
"""

import json
import re
import zlib
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.files.atomic_write import read_regular

VERSION = 2
"""The newest version that this release reads. It writes it only for what an older release would misread: the
request of a run with parts, and of a part. Everything else has version 1."""
_HEAD = re.compile(rb'\{"version":([0-9]{1,9}),"crc32":"([0-9a-f]{8})"(,?)')
_LONGEST_HEAD = 64
_MARK = b'"\\u0000data/'
"""Start of a stored string that is a path below the data directory. A real path never has a NUL."""


class NewerRecord(ConfigurationError):
    """A record was written by a newer release. It is neither changed nor moved."""

    @classmethod
    def at(cls, where: Path, version: int) -> "NewerRecord":
        return cls(
            f"{where} was written by a newer release of this program: its version is {version}, and "
            f"this release reads versions up to {VERSION}. Start the newer release again, or give this one a "
            "data directory of its own with COMFYUI_WORKFLOW_DATA_DIR. The record was left as it is"
        )


class RecordFormat:
    """Converts records to the format on disk and back. Immutable."""

    def __init__(self, data_dir: Path | None = None) -> None:
        """Without a data directory, paths are stored unchanged."""
        own = None if data_dir is None else str(data_dir.absolute()).rstrip("/") + "/"
        self._own = (
            None
            if own is None
            else json.dumps(own, ensure_ascii=False)[:-1].encode("utf-8", "surrogateescape")
        )

    def seal(self, record: bytes, version: int = 1) -> bytes:
        """Adds the head to a record, a JSON object without white space at its ends."""
        record = record if self._own is None else record.replace(self._own, _MARK)
        body = memoryview(record)[1:]  # a record may be large, so there are no copies of it
        comma = b"" if len(body) == 1 else b","
        head = b'{"version":%d,"crc32":"%s"%s' % (version, _checksum(version, body), comma)
        return b"".join((head, body))

    def unseal(self, content: bytes, where: Path) -> bytes:
        """Checks and removes the head. Returns the record. `where` is the path for error messages.
        Raises: StoreError if the content is damaged; NewerRecord."""
        head = _HEAD.match(content)
        if head is None:
            return self._with_own_paths(_without_seal(content, where))
        version, body = int(head[1]), content[head.end() :]
        if head[2] != _checksum(version, body):
            if version > VERSION and not _is_flipped_bit(version, head[2], body):
                raise NewerRecord.at(where, version)
            raise StoreError(f"its checksum does not match: a part of {where.name} is damaged")
        if version > VERSION:
            raise NewerRecord.at(where, version)
        return b"{" + self._with_own_paths(body)

    def read(self, path: Path) -> bytes:
        """Reads the record in a file. Raises: StoreError if it is damaged; NewerRecord; OSError."""
        return self.unseal(read_regular(path), path)

    def _with_own_paths(self, body: bytes) -> bytes:
        return body if self._own is None else body.replace(_MARK, self._own)

    @staticmethod
    def is_sealed(content: bytes) -> bool:
        return content.startswith(b'{"version":') and _HEAD.match(content) is not None


def _checksum(version: int, body: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(body, version)


def _is_flipped_bit(version: int, checksum: bytes, body: bytes) -> bool:
    """True if the version is a known one with one changed bit: a disk error, not another release."""
    return version < 10 and any(
        (version ^ known).bit_count() == 1 and checksum == _checksum(known, body)
        for known in range(1, VERSION + 1)
    )


def _without_seal(content: bytes, where: Path) -> bytes:
    """Reads a record without a valid head: of an earlier release, or rewritten by a person or another
    program. A rewritten record has both members of the head, formatted in another way; a damaged byte does
    not look like that.

    Raises: StoreError if the head is damaged; NewerRecord."""
    head = content[:_LONGEST_HEAD]
    if b'"version"' not in head and b'"crc32"' not in head:
        return content
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        read = None
    members = read if isinstance(read, dict) else {}
    version = members.pop("version", None)
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise NewerRecord.at(where, version)
    if members.pop("crc32", None) is not None and version in range(1, VERSION + 1):
        return json.dumps(members, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if b'"crc32"' in head or head.startswith(b'{"version":'):
        raise StoreError(f"its head cannot be read: a part of {where.name} is damaged")
    return content
