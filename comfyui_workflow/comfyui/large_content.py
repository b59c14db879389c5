"""Large content of an instance, an HTTP response or a websocket message: on disk while it arrives, in memory
one at a time.

How it works. More than MOST_IN_MEMORY_BYTES go to an unnamed temporary file. So content that arrives slowly
takes no memory, and nothing waits for it. Only when it is complete, one thread at a time reads it into memory
and parses it, however many instances there are.
"""

import tempfile
import threading
from typing import IO

from comfyui_workflow.errors import StoreError

MOST_IN_MEMORY_BYTES = 1024 * 1024
in_memory = threading.RLock()
"""Held while large content is in memory. Its holder waits for no instance: it has all of the content."""


class Spool:
    """Collects content that arrives in pieces. Belongs to one thread."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=MOST_IN_MEMORY_BYTES)  # noqa: SIM115

    def write(self, piece: bytes) -> None:
        """Raises: StoreError."""
        try:
            self._file.write(piece)
        except OSError as error:
            directory = tempfile.gettempdir()
            raise StoreError(
                f"A long answer of ComfyUI cannot be stored in {directory}: {error.strerror}"
            ) from error
        self.size_bytes += len(piece)

    def content(self) -> bytes | IO[bytes]:
        """Returns short content itself, long content as a file that the caller closes."""
        self._file.seek(0)
        if self.size_bytes > MOST_IN_MEMORY_BYTES:
            return self._file
        content = self._file.read()
        self._file.close()
        return content

    def read(self) -> bytes:
        """Returns all of the content, and closes its file. To be called with `in_memory` held."""
        with self._file:
            self._file.seek(0)
            return self._file.read()

    def close(self) -> None:
        self._file.close()
