"""A machine with a fake ComfyUI that has a Python of its own, and a web server with a registry and a git
repository."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.provisioning import fake_comfyui, fake_pip
from tests.provisioning.file_server import FileServer, ServedFile
from tests.sandbox_process import _claimed_port

PYTHON = """#!/bin/bash
export PYTHONPATH={packages}
[ "$1 $2" = "-m pip" ] && {{ echo "$@" >> {log}; exec {real} {pip} {packages} "$@"; }}
exec -a "$0" {real} "$@"
"""


class Machine:
    """A fake ComfyUI with a Python of its own, started as from a terminal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packs = root / "custom_nodes"
        self.models = root / "models"
        self.pip_log = root / "pip.log"
        self.packages = root / "packages"
        for directory in (self.packs, self.models, self.packages):
            directory.mkdir(parents=True)
        (root / "main.py").write_text(Path(fake_comfyui.__file__).read_text())
        (root / "pip.py").write_text(Path(fake_pip.__file__).read_text())
        python = root / "bin" / "python"
        python.parent.mkdir()
        python.write_text(
            PYTHON.format(log=self.pip_log, real=sys.executable, packages=self.packages, pip=root / "pip.py")
        )
        python.chmod(0o755)
        self._claim = _claimed_port()
        self.port = self._claim.getsockname()[1]

    def start(self) -> None:
        command = ["bin/python", "main.py", "--port", str(self.port), "--base", str(self.root)]
        environment = {**os.environ, "ITS_OWN": "1"}
        self.process = subprocess.Popen(command, cwd=self.root, env=environment, start_new_session=True)
        threading.Thread(target=self.process.wait, daemon=True).start()  # no zombie, as under a shell

    def pids(self) -> list[int]:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = file.read_bytes().split(b"\0")
                if b"main.py" in words and str(self.root).encode() in words:
                    found.append(int(file.parent.name))
        return found

    def close(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self._claim.close()


def git(*words: str, cwd: Path) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *author, *words], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


def serve_repository(web: FileServer, directory: Path, name: str = "fancy") -> list[str]:
    """Makes a repository with two versions, which a registry of this server knows. Returns their commits."""
    work = directory / f"work-{name}"
    work.mkdir()
    git("init", "-q", cwd=work)
    made = []
    for version in ("1.0.0", "2.0.0"):
        (work / "classes").write_text(f"{name.capitalize()} Version{version[0]}")
        (work / "requirements.txt").write_text("something==1\n")
        git("add", ".", cwd=work)
        git("commit", "-q", "-m", version, cwd=work)
        git("tag", f"v{version}", cwd=work)
        made.append(git("rev-parse", "HEAD", cwd=work))
    git("branch", "feature/old", made[0], cwd=work)
    bare = directory / f"{name}.git"
    git("clone", "-q", "--bare", str(work), str(bare), cwd=directory)
    git("update-server-info", cwd=bare)
    for file in (each for each in bare.rglob("*") if each.is_file()):
        web.files[f"{name}.git/{file.relative_to(bare)}"] = ServedFile(content=file.read_bytes(), etag=None)
    web.files[f"{name}.git/info/refs?service=git-upload-pack"] = web.files[f"{name}.git/info/refs"]
    web.files[f"nodes/{name}"] = ServedFile(
        content=json.dumps({"repository": web.url(f"{name}.git")}).encode(), etag=None
    )
    return made
