"""A program for the instance, sent over SSH and not stored there: installs node packs, restarts ComfyUI.

It needs Python 3.7 and its standard library only, and git for packs. The first line of the standard input is
the request, a JSON object:

    task                `install` or `restart`
    port, argv          of ComfyUI, as it tells them itself: they tell which process it is
    directory           ComfyUI's directory of node packs
    name, url, versions a pack to install: its directory, its repository, and the git refs to try in order

It prints {"comfyui-workflow": {...}} in a line: `log` (a line of git or pip) while it works; then `done` (a
sentence), or `error` (a sentence), or `is_busy` (ComfyUI has prompts, so it was not restarted). An
installation stops when the standard input ends, and with it git and pip; a restart goes on.

How it works. ComfyUI's process is found by its command line; it tells the Python of its environment, into
which requirements are installed. A pack is cloned into a directory beside its place, and renamed when it is
complete; only one program at a time installs there. ComfyUI is restarted with its own command line, directory
and environment, unless something else starts it again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

MARK = "comfyui-workflow"
ALIVE_S = 5
STOP_S = 20
QUEUE_S = 5
SUPERVISOR_S = 6
"""Time in which a supervisor starts an ended ComfyUI again."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""A network file system may have no locks."""
NOT_SUPERVISORS = ("sh", "bash", "dash", "ash", "zsh", "tini", "dumb-init", "docker-init", "catatonit")
"""If only these are above ComfyUI, its end may be the end of the container."""


class Failed(Exception):
    """The message is a sentence for a person."""


class Busy(Exception):
    """ComfyUI has prompts."""


def say(found: dict[str, Any]) -> None:
    """Prints one line. A short write to a pipe is atomic, so two threads may print."""
    os.write(1, f"{json.dumps({MARK: found})}\n".encode())


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline().decode())
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # a command of sshd leads its session already
    watchers = [say_alive]
    if request["task"] == "install":  # a restart goes on: an ended ComfyUI must not stay away
        watchers.append(stop_with_input)
    for work in watchers:
        threading.Thread(target=work, daemon=True).start()
    try:
        task = install_alone if request["task"] == "install" else restart
        say({"done": task(request)})
    except Busy:
        say({"is_busy": True})
    except Failed as error:
        say({"error": str(error)})
    except OSError as error:
        say({"error": f"{error.strerror or error} ({error.filename or request['task']})"})


def stop_with_input() -> None:
    """Ends this program and what it has started; not ComfyUI, which is in a session of its own."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def say_alive() -> None:
    while True:
        time.sleep(ALIVE_S)
        say({})


# --- the process of ComfyUI


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        root = Path("/proc") / str(pid)
        self.argv = [part.decode(errors="surrogateescape") for part in zero_separated(root / "cmdline")]
        self.cwd = os.readlink(root / "cwd")  # noqa: PTH115 - as text, without a check
        pairs = (part.partition(b"=") for part in zero_separated(root / "environ"))
        self.environment = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}

    @property
    def python(self) -> str:
        """The Python of its environment: that of the command line, since `exe` is the one below a venv."""
        name = self.argv[0]
        if "/" in name:
            return str(Path(self.cwd) / name)
        found = shutil.which(name, path=self.environment.get("PATH"))
        return found or os.readlink(f"/proc/{self.pid}/exe")  # noqa: PTH115


def zero_separated(path: Path) -> list[bytes]:
    return [part for part in path.read_bytes().split(b"\0") if part]


def find_comfyui(argv: list[str]) -> Process:
    """Returns the process whose command line ends with the `argv` that ComfyUI tells. Raises: Failed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = [part.decode(errors="surrogateescape") for part in zero_separated(path)]
            if argv and words[-len(argv) :] == argv and len(words) > len(argv) and "python" in words[0]:
                found.append(Process(int(path.parent.name)))
    if len(found) != 1:
        count = "no process" if not found else f"{len(found)} processes"
        raise Failed(f"{count} of the machine can be recognized as ComfyUI by the SSH user")
    return found[0]


# --- node packs


def install_alone(request: dict[str, Any]) -> str:
    """Waits while another program installs here, for another run or another server."""
    directory = os.open(request["directory"], os.O_RDONLY)
    try:
        while not is_locked(directory):
            say({"log": "waiting for another installation on this machine"})
            time.sleep(1)
        return install(request)
    finally:
        os.close(directory)


def is_locked(directory: int) -> bool:
    """Takes the lock of the directory. True if this program has it now, or the file system has no locks."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    return True


def install(request: dict[str, Any]) -> str:
    comfyui = find_comfyui(request["argv"])
    target = Path(request["directory"], request["name"])
    if not target.exists():
        clone(request, target)
    requirements, script = target / "requirements.txt", target / "install.py"
    if requirements.exists():
        install_requirements(comfyui, requirements)
    if script.exists():
        run([comfyui.python, str(script)], cwd=target, env=comfyui.environment)
    return f"Installed the node pack {request['name']} ({described(target)})"


def described(target: Path) -> str:
    """Returns the tag or the commit of a pack."""
    command = ["git", "-C", str(target), "describe", "--tags", "--always", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if (target / ".git").exists():
            return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()  # noqa: S603
    return "not from git"


def clone(request: dict[str, Any], target: Path) -> None:
    if shutil.which("git") is None:
        raise Failed("there is no git on the machine")
    part = target.with_name(f"{target.name}.part.disabled")  # ComfyUI loads no directory of that ending
    shutil.rmtree(part, ignore_errors=True)
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    allowed = ["-c", "protocol.allow=never", "-c", "protocol.https.allow=always"]
    if request["url"].startswith("http://"):
        allowed += ["-c", "protocol.http.allow=always"]
    run(["git", *allowed, "clone", "--", request["url"], str(part)], env=env)
    for version in request["versions"]:
        if is_done(["git", "-C", str(part), "checkout", "--quiet", "--detach", version], env):
            break
    run(["git", "-C", str(part), *allowed, "submodule", "update", "--init", "--recursive"], env=env)
    part.rename(target)


def install_requirements(comfyui: Process, requirements: Path) -> None:
    if is_done([comfyui.python, "-m", "pip", "--version"], comfyui.environment):
        command = [comfyui.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    elif shutil.which("uv") is not None:
        command = ["uv", "pip", "install", "--python", comfyui.python]
    else:
        raise Failed("the Python of ComfyUI has no pip, and there is no uv on the machine")
    run([*command, "-r", str(requirements)], env=comfyui.environment)


def is_done(command: list[str], env: dict[str, str]) -> bool:
    """Runs a command; True if it succeeds."""
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0  # noqa: S603


def run(command: list[str], *, env: dict[str, str], cwd: Path | None = None) -> None:
    """Runs a command and passes on what it prints. Raises: Failed with its last lines."""
    last: list[str] = []
    with subprocess.Popen(  # noqa: S603
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout or ():
            text = line.decode(errors="replace").strip()[:300]
            last = [*last[-4:], text] if text else last
            say({"log": text})
    if process.returncode:
        raise Failed(
            f"{Path(command[0]).name} ended with status {process.returncode}: {' '.join(last)[:600]}"
        )


# --- the restart


def restart(request: dict[str, Any]) -> str:
    comfyui = find_comfyui(request["argv"])
    check_may_end(comfyui.pid)
    if has_prompts(request["port"]):
        raise Busy
    os.kill(comfyui.pid, signal.SIGTERM)
    if not wait_for(lambda: has_ended(comfyui.pid), STOP_S):
        os.kill(comfyui.pid, signal.SIGKILL)
        wait_for(lambda: has_ended(comfyui.pid), STOP_S)
    if wait_for(lambda: is_started(request["argv"]), SUPERVISOR_S):
        return "ComfyUI was started again by its supervisor"
    log = Path(request["directory"]).parent / "comfyui_restarted.log"
    with log.open("ab") as output:
        subprocess.Popen(  # noqa: S603
            [comfyui.python, *comfyui.argv[1:]],
            cwd=comfyui.cwd,
            env=comfyui.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return f"ComfyUI was started again with its own command line; it prints to {log}"


def has_prompts(port: int) -> bool:
    """False also if ComfyUI does not tell it here: there is a login before it, or it listens elsewhere. The
    server has asked before."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/prompt", timeout=QUEUE_S) as answer:
            return bool(json.loads(answer.read(65536))["exec_info"]["queue_remaining"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return False


def check_may_end(pid: int) -> None:
    """Raises: Failed if nothing but shells is above ComfyUI: then its end may stop the whole container."""
    above = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pid >= 1:
            above.append(Path(f"/proc/{pid}/comm").read_text().strip())
    if all(name in NOT_SUPERVISORS for name in above):
        raise Failed("ComfyUI is the main program of its container, which would stop with it")


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def is_started(argv: list[str]) -> bool:
    try:
        find_comfyui(argv)
    except Failed:
        return False
    return True


def wait_for(is_true: Any, limit_s: float) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if is_true():
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
