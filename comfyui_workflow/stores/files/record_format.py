"""The form in which every JSON record is kept: a version, a checksum, and paths that move with their data.

    {"version":1,"crc32":"89abcdef",<the members of the record>}

The checksum covers the version and everything after the checksum, so a damaged byte anywhere is noticed, also
where the JSON still parses. A record without this head is one of an earlier release: it is read as it is.

A string that begins with the path of the data directory is kept with a mark in the place of that path, so a
data directory that was moved still finds the files below it.
"""

import json
import re
import zlib
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.files.atomic_write import read_regular

VERSION = 1
_HEAD = re.compile(rb'\{"version":([0-9]{1,9}),"crc32":"([0-9a-f]{8})"(,?)')
_LONGEST_HEAD = 64
_MARK = b'"\\u0000data/'
"""How a kept string begins that names a file below the data directory. No path holds a NUL."""


class NewerRecord(ConfigurationError):
    """A record that a newer release has written. Nothing of it is changed or set aside."""

    @classmethod
    def at(cls, where: Path, version: int) -> "NewerRecord":
        return cls(
            f"{where} was written by a newer release of this program: its version is {version}, and "
            f"this release reads versions up to {VERSION}. Start the newer release again, or give this one a "
            "data directory of its own with COMFYUI_WORKFLOW_DATA_DIR. The record was left as it is"
        )


class RecordFormat:
    """Puts records into the form in which they are kept, and takes them out of it. Immutable."""

    def __init__(self, data_dir: Path | None = None) -> None:
        """Without a data directory, paths are kept as they are."""
        own = None if data_dir is None else str(data_dir.absolute()).rstrip("/") + "/"
        self._own = (
            None
            if own is None
            else json.dumps(own, ensure_ascii=False)[:-1].encode("utf-8", "surrogateescape")
        )

    def seal(self, record: bytes) -> bytes:
        """`record` is a JSON object without white space at its ends."""
        body = record[1:] if self._own is None else record[1:].replace(self._own, _MARK)
        comma = b"" if body == b"}" else b","
        return b'{"version":%d,"crc32":"%s"%s%s' % (VERSION, _checksum(VERSION, body), comma, body)

    def unseal(self, content: bytes, where: Path) -> bytes:
        """The record. `where` is named in the errors.
        Raises: StoreError when the content is damaged; NewerRecord."""
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
        """The record in a file. Raises: StoreError when it is damaged; NewerRecord; OSError."""
        return self.unseal(read_regular(path), path)

    def _with_own_paths(self, body: bytes) -> bytes:
        return body if self._own is None else body.replace(_MARK, self._own)

    @staticmethod
    def is_sealed(content: bytes) -> bool:
        return content.startswith(b'{"version":') and _HEAD.match(content) is not None


def _checksum(version: int, body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body, version)


def _is_flipped_bit(version: int, checksum: bytes, body: bytes) -> bool:
    """Whether the version is ours with one bit changed: a fault of the disk, not another release."""
    is_one_bit = version < 10 and (version ^ VERSION).bit_count() == 1
    return is_one_bit and checksum == _checksum(VERSION, body)


def _without_seal(content: bytes, where: Path) -> bytes:
    """A record of an earlier release; or one that a person or another program has written anew, which a
    damaged byte does not look like: both members of the head are there, in another form than ours."""
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
    if members.pop("crc32", None) is not None and version == VERSION:
        return json.dumps(members, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if b'"crc32"' in head or head.startswith(b'{"version":'):
        raise StoreError(f"its head cannot be read: a part of {where.name} is damaged")
    return content
