"""Learns if the save nodes of an instance give each file a new name.

How it works. A node like SaveImage numbers its files; others overwrite `final.png` with every prompt. ComfyUI
does not tell which kind a node is. It is known for ComfyUI's own nodes; for others it is learned from the
file names that they report.
"""

import threading
from collections.abc import Iterable

from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES

FileKey = tuple[str, str, str]
"""(folder, subfolder, name)."""
_MOST_NAMES = 10_000


class FileNaming:
    """Knowledge about the save nodes of one instance. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbering: set[str] = set()
        self._overwriting: set[str] = set()
        self._names: dict[str, dict[FileKey, str]] = {}

    def is_numbering(self, class_type: str) -> bool:
        """True if each file of the node class gets a new name, as far as is known."""
        with self._lock:
            return class_type in NUMBERING_CLASSES or class_type in self._numbering

    def learn(self, class_type: str, prompt_id: str, files: Iterable[FileKey]) -> None:
        """Records the file names that a prompt reported for nodes of a class, without those from the cache.
        Different names in two prompts mean that the class numbers its files; the same name in two prompts
        means that it overwrites."""
        files = set(files)
        with self._lock:
            known = self._names.setdefault(class_type, {})
            is_first = all(seen_in == prompt_id for seen_in in known.values())
            if any(known.get(file, prompt_id) != prompt_id for file in files):
                self._overwriting.add(class_type)
                self._numbering.discard(class_type)
            elif class_type not in self._overwriting and (not files or not is_first):
                self._numbering.add(class_type)
            if len(known) > _MOST_NAMES:
                known.clear()
            known.update(dict.fromkeys(files, prompt_id))
