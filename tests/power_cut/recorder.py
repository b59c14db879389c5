"""Every change that this process makes to the files below one directory, in order, as lines of JSON.

A record is `{"op": …}` with, as far as the operation has them, `path`, `to`, `inode` and `content` (base64):

    create    a file that was not there, opened for writing      truncate  one that was, opened empty
    mkdir, rmdir, unlink
    rename    `path` is now `to`, with its content if it is a file         link      `path` is also `to`
    sync      fsync of a file, with its content when it began, or of a directory (`content` is null)
    sync all  sync or syncfs
    mark      what somebody was told, or is about to be; not an operation

Writes are no records: both syncs tell what was `written` before them, of each file that is not as long as at
the sync before, by its inode. (A file that is written over in its place would not be noticed.) An operation
and its record are under one lock, so the order of the records is that of the operations. Names are resolved
as the process passes them; paths outside of the directory are left out. Linux only: descriptors are read by
their names in /proc.
"""

import base64
import builtins
import ctypes
import io
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_Function = Callable[..., Any]


class Recorder:
    """Replaces functions of `os` and `io` for this process: there is no way back."""

    def __init__(self, root: Path, record_file: Path) -> None:
        self._root = str(root)
        self._record = os.open(record_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.RLock()
        self._open = io.open
        self._sizes: dict[int, int] = {}

    def install(self) -> None:
        shutil._use_fd_functions = False  # type: ignore[attr-defined] # names, not descriptors of directories
        for name in ("rename", "replace", "link"):
            self._replace(os, name, self._from_to("link" if name == "link" else "rename"))
        for name, op in (("mkdir", "mkdir"), ("rmdir", "rmdir"), ("unlink", "unlink"), ("remove", "unlink")):
            self._replace(os, name, self._of_path(op))
        for name in ("fsync", "fdatasync"):
            self._replace(os, name, self._sync)
        self._replace(os, "sync", self._sync_all)
        self._replace(os, "open", self._creating(_flags_create, _flags_truncate))
        for module in (io, builtins):
            self._replace(module, "open", self._creating(_mode_creates, _mode_truncates))
        self._replace_syncfs()

    def mark(self, what: str, **fields: object) -> None:
        with self._lock:
            self._note("mark", what=what, **fields)

    def _replace(self, module: Any, name: str, wrap: Callable[[_Function], _Function]) -> None:
        setattr(module, name, wrap(getattr(module, name)))

    def _replace_syncfs(self) -> None:
        """It is in no module of Python: programs have it from the C library."""
        for module in [each for name, each in sys.modules.items() if name.startswith("comfyui_workflow")]:
            for name, value in list(vars(module).items()):
                if isinstance(value, ctypes._CFuncPtr) and value.__name__ == "syncfs":  # type: ignore[attr-defined]
                    self._replace(module, name, self._sync_all)

    def _of_path(self, op: str) -> Callable[[_Function], _Function]:
        def wrap(function: _Function) -> _Function:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                with self._lock:
                    result = function(path, *arguments, **options)
                    if self._is_ours(path):
                        inode = os.lstat(path).st_ino if op == "mkdir" else None
                        self._note(op, path=os.fspath(path), inode=inode)
                    return result

            return call

        return wrap

    def _from_to(self, op: str) -> Callable[[_Function], _Function]:
        def wrap(function: _Function) -> _Function:
            def call(source: Any, target: Any, *arguments: Any, **options: Any) -> Any:
                with self._lock:
                    result = function(source, target, *arguments, **options)
                    if self._is_ours(source) or self._is_ours(target):
                        content = self._content(target) if Path(target).is_file() else None
                        self._note(op, path=os.fspath(source), to=os.fspath(target), content=content)
                    return result

            return call

        return wrap

    def _creating(self, creates: Callable[..., bool], truncates: Callable[..., bool]) -> Any:
        def wrap(function: _Function) -> _Function:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                if not self._is_ours(path) or not creates(*arguments, **options):
                    return function(path, *arguments, **options)
                with self._lock:
                    was_there = os.path.lexists(path)
                    result = function(path, *arguments, **options)
                    if not was_there or truncates(*arguments, **options):
                        inode = os.lstat(path).st_ino
                        self._sizes.pop(inode, None)  # of what was there, or of a file that is gone
                        op = "truncate" if was_there else "create"
                        self._note(op, path=os.fspath(path), inode=inode)
                    return result

            return call

        return wrap

    def _sync(self, function: _Function) -> _Function:
        def call(file: Any) -> None:
            descriptor = file if isinstance(file, int) else file.fileno()
            name = f"/proc/self/fd/{descriptor}"
            if not self._is_ours(Path(name).readlink()):
                function(file)
                return
            with self._lock:
                content = None if Path(name).is_dir() else self._content(name)
                written = self._written()
                function(file)
                self._note("sync", inode=os.fstat(descriptor).st_ino, content=content, written=written)

        return call

    def _sync_all(self, function: _Function) -> _Function:
        def call(*arguments: Any) -> Any:
            with self._lock:
                written = self._written()
                result = function(*arguments)
                self._note("sync all", written=written)
                return result

        return call

    def _written(self) -> dict[int, str]:
        """Returns the contents of files whose size has changed since the last call."""
        found = {}
        for path in Path(self._root).rglob("*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and self._sizes.get(status.st_ino) != status.st_size:
                self._sizes[status.st_ino] = status.st_size
                found[status.st_ino] = self._content(path)
        return found

    def _content(self, name: Any) -> str:
        with self._open(name, "rb") as file:
            return base64.b64encode(file.read()).decode()

    def _is_ours(self, path: Any) -> bool:
        return not isinstance(path, int) and os.fspath(path).startswith(self._root + "/")

    def _note(self, op: str, **fields: object) -> None:
        line = json.dumps({"op": op, **fields}) + "\n"
        os.write(self._record, line.encode())


def _flags_create(flags: int, *_rest: Any, **_options: Any) -> bool:
    return bool(flags & (os.O_CREAT | os.O_TRUNC))


def _flags_truncate(flags: int, *_rest: Any, **_options: Any) -> bool:
    return bool(flags & os.O_TRUNC)


def _mode_creates(mode: str = "r", *_rest: Any, **_options: Any) -> bool:
    return any(letter in mode for letter in "wax")


def _mode_truncates(mode: str = "r", *_rest: Any, **_options: Any) -> bool:
    return "w" in mode
