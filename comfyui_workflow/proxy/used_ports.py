"""Every port of this machine that has led to an instance, also before this start: a page from there may still
be open in a browser, and its JavaScript is the instance's."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from comfyui_workflow.files.atomic_write import (
    make_private_directory,
    read_regular,
    write_atomically,
)
from comfyui_workflow.parsing.untrusted import a_list, read_json

log = logging.getLogger(__name__)


class UsedPorts:
    """Kept in a file as a JSON list of numbers; in memory only where there is none. Every method may be
    called from any thread."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._numbers: frozenset[int] = frozenset()

    def load(self) -> None:
        """A file that cannot be read is a warning in the log, and is written anew with the next port."""
        try:
            known = [] if self._file is None else a_list(read_json(read_regular(self._file)))
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
        """A disk that does not take them is a warning in the log: until the next start they are known."""
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
