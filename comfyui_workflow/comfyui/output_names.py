"""Whether the save nodes of an instance give each file a name of its own.

A node like SaveImage numbers its files; others write over `final.png` with every prompt. Which they do is
told nowhere: of ComfyUI's own nodes it is known, of others it is learned from the names that they tell of.
"""

import threading
from collections.abc import Iterable

from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES

FileKey = tuple[str, str, str]
"""Folder, subfolder, name."""
_MOST_NAMES = 10_000


class FileNaming:
    """What is known of the save nodes of one instance. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbering: set[str] = set()
        self._overwriting: set[str] = set()
        self._names: dict[str, dict[FileKey, str]] = {}

    def is_numbering(self, class_type: str) -> bool:
        """Whether each of its files has a name of its own, as far as is known."""
        with self._lock:
            return class_type in NUMBERING_CLASSES or class_type in self._numbering

    def learn(self, class_type: str, prompt_id: str, files: Iterable[FileKey]) -> None:
        """What a prompt told of the files of such nodes, which it did not take from a cache: new names in
        two prompts are numbered ones, one name in two of them is one that is written over."""
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
