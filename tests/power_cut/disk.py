"""A small disk whose power can be cut: a file system on a loop device, and a copy of it as of one moment.

    tmpfs                    nothing here waits for a real disk
      host.img      XFS      the file system that clones files
        disk.img    ext4 or XFS, mounted at `place`: where the server keeps its data
        cut.img              its clone, made by `cut` and mounted in its stead by `restore`

How it works. What a program has written is in the page cache of the inner file system, and gets to `disk.img`
when that file system writes it back: because somebody synced it, or after up to 30 s by itself. A power cut
loses the page cache and keeps `disk.img`. `FICLONE` copies that file under the lock that each write to it
takes, in less than a millisecond, so the copy is the disk at one point in time, between two writes of its
block layer; nothing of the inner file system is flushed or frozen for it, unlike by `fsfreeze`, a snapshot of
a device mapper or a sync. Mounting the copy replays its journal, as after a real cut.

What remains of reality: the disk has no volatile cache of its own. A write that has reached it is kept, also
when no flush followed; a real disk may lose those, in any order. And a write of several sectors is not torn.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

FILE_SYSTEMS = ("ext4", "XFS")
DISK_BYTES = 320_000_000
"""Sparse. XFS takes nothing under 300 MiB."""
HOST_BYTES = 1_200_000_000
_FICLONE = 0x40049409
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"],
    "XFS": ["mkfs.xfs", "-q", "-f"],
}
_OPTIONS = {"ext4": "loop", "XFS": "loop,nouuid"}


class Disk:
    """Mounted from `open` to `close`. Every method raises subprocess.CalledProcessError or OSError where this
    machine does not let us."""

    def __init__(self, directory: Path, file_system: str) -> None:
        """`directory` is made; `directory/disk` is where the disk is mounted."""
        self.place = directory / "disk"
        self._directory = directory
        self._file_system = file_system
        self._host = directory / "tmpfs" / "host"
        self._mounted = ExitStack()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self) -> None:
        try:
            self._mount_host()
            _make(self._host / "disk.img", DISK_BYTES, self._file_system)
            self._mount(self._host / "disk.img")
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """Keep what is on the disk now. The server may go on writing: it writes to what is lost."""
        with (
            (self._host / "disk.img").open("rb") as source,
            (self._host / "cut.img").open("wb") as target,
        ):
            fcntl.ioctl(target, _FICLONE, source.fileno())

    def restore(self) -> None:
        """Mount what was on the disk at the cut, at the same place. Nobody has a file open there."""
        _run("umount", str(self.place))
        (self._host / "disk.img").unlink()
        (self._host / "cut.img").rename(self._host / "disk.img")
        _run("mount", "-o", _OPTIONS[self._file_system], str(self._host / "disk.img"), str(self.place))

    def close(self) -> None:
        """Idempotent."""
        self._mounted.close()

    def _mount_host(self) -> None:
        tmpfs = self._directory / "tmpfs"
        tmpfs.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={HOST_BYTES},mode=0700", "none", str(tmpfs))
        self._mounted.callback(_unmount, tmpfs)
        _make(tmpfs / "host.img", HOST_BYTES, "XFS")
        self._host.mkdir()
        _run("mount", "-o", _OPTIONS["XFS"], str(tmpfs / "host.img"), str(self._host))
        self._mounted.callback(_unmount, self._host)

    def _mount(self, image: Path) -> None:
        self.place.mkdir()
        _run("mount", "-o", _OPTIONS[self._file_system], str(image), str(self.place))
        self._mounted.callback(_unmount, self.place)


def _make(image: Path, size: int, file_system: str) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    _run(*_MAKE[file_system], str(image))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _unmount(place: Path) -> None:
    """Lazily: also where a server that was just killed has not let go."""
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True, timeout=60)


@functools.cache
def cannot_cut(file_system: str) -> str | None:
    """None where the power of such a disk can be cut; otherwise the reason. Tries it, in half a second."""
    for tool in (_MAKE[file_system][0], "mkfs.xfs", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"there is no {tool} here (Debian has it in e2fsprogs, xfsprogs and mount)"
    if os.geteuid() != 0:
        return "only root may mount a loop device"
    with tempfile.TemporaryDirectory(prefix="power-cut-") as directory:
        try:
            with Disk(Path(directory) / "tried", file_system) as disk:
                return _difference(disk)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            return f"loop devices with {file_system} cannot be used here: {said or error}"
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"loop devices with {file_system} cannot be used here: {error}"


def _difference(disk: Disk) -> str | None:
    """A cut that loses nothing would prove nothing."""
    synced, lost = disk.place / "synced", disk.place / "lost"
    with synced.open("wb") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
    lost.write_bytes(b"lost")
    disk.cut()
    disk.restore()
    if synced.read_bytes() != b"synced":
        return "a synced file is not on a loop device here"
    if lost.exists() and lost.read_bytes() == b"lost":
        return "what is written to a loop device is there at once here, so that a cut takes nothing"
    return None
