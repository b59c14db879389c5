"""Which files may be on the disk after a power cut: a model of ext4 and XFS, as their defaults are.

Both keep a journal of changes to names and directories, and commit it in order. So after a cut the names are
as they were at *some* moment: no earlier than what was forced, no later than the cut. What forces them is a
sync: one that has something to write forces all that came before it; one of a file or directory that has not
changed since is free, and forces nothing but that last change.

The content of a file is there if it was synced; otherwise the file is as it was when it was synced last, or
empty if it never was: both file systems put off finding room for it. ext4 finds it earlier in one case, of
which programs have come to depend: when a rename puts the file in the place of another. What was added to a
file since it was synced may be lost; or half of it is there, as on XFS when one block of two was written; or
it is so many zeros, as on ext4, where the length is in the journal and the end of a block that is in use
already may be written later.

`states` yields the worst of what may be there. Left out are the better ones, and a journal that is broken.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

Record = Mapping[str, Any]
Tree = Mapping[str, int]
"""Paths, and which file or directory each is."""


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    name: str
    keeps_what_replaces: bool
    adds_zeros: bool


EXT4 = FileSystem(name="ext4", keeps_what_replaces=True, adds_zeros=True)
XFS = FileSystem(name="XFS", keeps_what_replaces=False, adds_zeros=False)


@dataclass(frozen=True, kw_only=True)
class State:
    """A state that a cut may leave: directories, and files with their content. It may be found from record
    `names_at` on, at cuts up to before record `until`."""

    directories: frozenset[str]
    files: Mapping[str, bytes]
    names_at: int
    until: int


@dataclass(kw_only=True)
class _Disk:
    """The names in memory, and what is known to be on the disk."""

    file_system: FileSystem
    names: dict[str, int] = field(default_factory=dict)
    directories: set[int] = field(default_factory=set)
    by_inode: dict[int, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    written: dict[int, bytes] = field(default_factory=dict)
    changed_at: dict[int, int] = field(default_factory=dict)
    forced_at: int = 0
    count: int = 0

    def take(self, at: int, record: Record) -> bool:
        """Whether it changed what is certain: what is forced, or a content."""
        match record["op"]:
            case "create" | "mkdir":
                self._create(at, record)
            case "rmdir" | "unlink":
                self._remove(at, record["path"])
            case "rename":
                self._rename(at, record)
            case "link":
                self._name(at, record["to"], self.names[record["path"]])
            case "truncate":
                number = self.by_inode[record["inode"]]
                self.contents[number] = self.written[number] = b""
                return True
            case "sync":
                return self._sync(at, record)
            case "sync all":
                self._write(record)
                self.contents.update(self.written)
                self.forced_at = at
                return True
        return False

    def _create(self, at: int, record: Record) -> None:
        self.count += 1
        self.by_inode[record["inode"]] = self.count
        if record["op"] == "mkdir":
            self.directories.add(self.count)
        self._name(at, record["path"], self.count)

    def _name(self, at: int, path: str, number: int) -> None:
        self.names[path] = number
        self._touch(at, path, number)

    def _remove(self, at: int, path: str) -> None:
        self._touch(at, path, self.names.pop(path))

    def _touch(self, at: int, path: str, number: int) -> None:
        parent = self.names.get(str(PurePath(path).parent))
        for changed in (number, parent):
            if changed is not None:
                self.changed_at[changed] = at

    def _rename(self, at: int, record: Record) -> None:
        source, target = record["path"], record["to"]
        replaces, number = target in self.names, self.names.pop(source)
        self._touch(at, source, number)
        self._name(at, target, number)
        for path in [path for path in self.names if path.startswith(source + "/")]:
            self.names[target + path.removeprefix(source)] = self.names.pop(path)
        if replaces and record["content"] is not None and self.file_system.keeps_what_replaces:
            self.contents[number] = base64.b64decode(record["content"])

    def _write(self, record: Record) -> None:
        for inode, content in record["written"].items():
            self.written[self.by_inode[int(inode)]] = base64.b64decode(content)

    def _sync(self, at: int, record: Record) -> bool:
        self._write(record)
        number = self.by_inode[record["inode"]]
        content = None if record["content"] is None else base64.b64decode(record["content"])
        if content is not None and self.contents.get(number) != content:
            self.contents[number], self.forced_at = content, at
        else:
            self.forced_at = max(self.forced_at, self.changed_at.get(number, 0))
        return True


def states(records: Sequence[Record], file_system: FileSystem) -> list[State]:
    """Each once, for the latest cut that may leave it: then most is promised. A record that is no operation
    is passed over."""
    found = {
        (state.directories, frozenset(state.files.items())): state for state in _states(records, file_system)
    }
    return list(found.values())


def _states(records: Sequence[Record], file_system: FileSystem) -> Iterator[State]:
    """In the order of the cuts."""
    disk = _Disk(file_system=file_system)
    trees: list[Tree] = []
    for at, record in enumerate(records):
        contents, forced_at = dict(disk.contents), disk.forced_at
        if disk.take(at, record):
            yield from _between(disk, trees, contents, forced_at, at)
        changes_names = record["op"] not in ("sync", "sync all", "mark", "truncate")
        trees.append(dict(disk.names) if changes_names or not trees else trees[-1])
    yield from _between(disk, trees, disk.contents, disk.forced_at, len(records))


def _between(
    disk: _Disk, trees: Sequence[Tree], contents: Mapping[int, bytes], forced_at: int, until: int
) -> Iterator[State]:
    """Yields the states after cuts between two syncs. The latest of them may find any names since what was
    forced, and each file as it was synced, or with some of what was added since."""
    longer = {**contents, **dict(_longer(disk, contents))}
    last: Tree | None = None
    for at in range(forced_at, until):
        if trees[at] is not last:
            last = trees[at]
            yield _state(disk, last, contents, at, until)
    if last is not None and longer != contents:
        yield _state(disk, last, longer, until - 1, until)


def _longer(disk: _Disk, contents: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    for number, synced in contents.items():
        written = disk.written.get(number, b"")
        more = len(written) - len(synced)
        if synced and more > 0 and written.startswith(synced):
            half = written[: len(synced) + more // 2]
            yield number, synced + b"\0" * more if disk.file_system.adds_zeros else half


def _state(disk: _Disk, tree: Tree, contents: Mapping[int, bytes], at: int, until: int) -> State:
    return State(
        directories=frozenset(path for path, number in tree.items() if number in disk.directories),
        files={
            path: contents.get(number, b"") for path, number in tree.items() if number not in disk.directories
        },
        names_at=at,
        until=until,
    )
