"""Every port of this machine that ever led to an instance, also before this start. A page from such a port
may still be open in a browser, and its JavaScript comes from the instance."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from comfyui_workflow.files.atomic_write import (
    make_private_directory,
    read_regular,
    write_atomically,
)
from comfyui_workflow.parsing.untrusted import as_list, read_json

log = logging.getLogger(__name__)


class UsedPorts:
    """Stored in a file as a JSON list of numbers; only in memory without a file. Every method may be called
    from any thread."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._numbers: frozenset[int] = frozenset()

    def load(self) -> None:
        """Reads the file. If it cannot be read, a warning is logged, and the next new port writes it
        again."""
        try:
            known = [] if self._file is None else as_list(read_json(read_regular(self._file)))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read: %s", self._file, error)
            return
        with self._lock:
            self._numbers |= {number for number in known if isinstance(number, int)}

    def all(self) -> frozenset[int]:
        return self._numbers

    def add(self, numbers: Iterable[int]) -> None:
        """Adds ports and writes the file. If it cannot be written, a warning is logged, and the ports are
        known until the next start only."""
        with self._lock:
            found = self._numbers | {number for number in numbers if number}
            if found == self._numbers:
                return
            self._numbers = found
            if self._file is None:
                return
            try:
                make_private_directory(self._file.parent)
                write_atomically(self._file, str(sorted(found)).encode())
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error.strerror)
