"""A program for the instance, sent over SSH and not stored there: installs packages and node packs, restarts
ComfyUI, and tells what is there.

It needs Python 3.7 and its standard library only, and git for packs. The first line of the standard input is
the request, a JSON object:

    task                `install`, `apt`, `pip`, `inspect` or `restart`
    argv                of ComfyUI, as it tells it itself: it tells which process it is
    directory           ComfyUI's directory of node packs
    name, url, versions a pack to install: its directory, its repository, and the git refs to try in order
    is_exact            true: the pack must be at one of the refs, or it is an error
    is_from_url         true: a pack that is there must be a clone of that repository
    packages            of `apt` or `pip` to install
    check_pip           for `pip` and `inspect`: a program for the Python of ComfyUI, `check_pip_program`
    apt, pip, packs     to inspect: packages, requirements, and packs as above
    files               to inspect: objects with `path`, and `is_hashed` if the SHA-256 is wanted
    known               {path: [size, time, sha256]}: files that were hashed before

It prints {"comfyui-workflow": {...}} in a line: `log` (a line of git or pip) while it works; `found` (what
was inspected); then `done` (a sentence) with `is_changed`, or `error` (a sentence), or `is_busy` (ComfyUI has
prompts, so it was not restarted). An installation stops when the standard input ends, and with it git and
pip; a restart goes on, and so does apt, which would leave packages behind that are half installed.

How it works. ComfyUI's process is found by its command line; it tells the Python of its environment, into
which requirements are installed. A pack is cloned into a directory beside its place, and renamed when it is
complete; only one program at a time installs there. A file in its git directory tells that its requirements
are not installed yet. ComfyUI is restarted with its own command line, directory and environment, unless
something else starts it again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import http.client
import json
import os
import re
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


UNFINISHED = "comfyui-workflow-unfinished"
"""File in the git directory of a pack whose requirements are not installed yet."""
PIECE_BYTES = 1024 * 1024
GOES_ON = ("apt", "restart")
"""Tasks that the end of the connection does not end."""


class Failed(Exception):
    """The message is a sentence for a person."""


class Busy(Exception):
    """ComfyUI has prompts."""


def say(found: dict[str, Any]) -> None:
    """Prints one line. A short write to a pipe is atomic, so two threads may print."""
    with contextlib.suppress(BrokenPipeError):  # the connection was cut, and the task goes on
        os.write(1, f"{json.dumps({MARK: found})}\n".encode())


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline().decode())
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # a command of sshd leads its session already
    watchers = [say_alive]
    if request["task"] not in GOES_ON:  # an ended ComfyUI must not stay away
        watchers.append(stop_with_input)
    for work in watchers:
        threading.Thread(target=work, daemon=True).start()
    try:
        tasks = {"install": install, "apt": install_apt, "pip": install_pip}
        if request["task"] in tasks:
            say(alone(tasks[request["task"]], request))
        else:
            say({"inspect": inspect, "restart": restart}[request["task"]](request))
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


def alone(task: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Waits while another program installs here, for another run or another server."""
    directory = os.open(request["directory"], os.O_RDONLY)
    try:
        while not is_locked(directory):
            say({"log": "waiting for another installation on this machine"})
            time.sleep(1)
        result: dict[str, Any] = task(request)
        return result
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


def install(request: dict[str, Any]) -> dict[str, Any]:
    comfyui = find_comfyui(request["argv"])
    target = find_pack(request)
    if not target.exists():
        clone(request, target)
    elif request.get("is_exact"):
        move_to_version(request, target)
    requirements, script = target / "requirements.txt", target / "install.py"
    if requirements.exists():
        install_requirements(comfyui, ["-r", str(requirements)])
    if script.exists():
        run([comfyui.python, str(script)], cwd=target, env=comfyui.environment)
    with contextlib.suppress(OSError):
        (target / ".git" / UNFINISHED).unlink()
    return {"done": f"Installed the node pack {request['name']} ({described(target)})", "is_changed": True}


def find_pack(request: dict[str, Any]) -> Path:
    """Returns the directory of a pack, whether it exists or not: it may be there under a name in other
    letters, or as a clone under another name."""
    directory, name = Path(request["directory"]), request["name"]
    others = [each for each in directory.iterdir() if not each.name.endswith(".disabled") and each.is_dir()]
    same = [each for each in others if each.name == name]
    same += [each for each in others if each.name.lower() == name.lower()]
    if request.get("is_from_url"):
        same += [each for each in others if plain_origin(origin_of(each)) == plain_origin(request["url"])]
    return (same or [directory / name])[0]


def origin_of(target: Path) -> str:
    return (
        printed(["git", "-C", str(target), "config", "--get", "remote.origin.url"])
        if is_clone(target)
        else ""
    )


def plain_origin(url: str) -> str:
    """Returns what tells two repositories apart."""
    plain = re.sub(r"^[a-z+]+://([^/@]*@)?", "", url.strip().lower()).rstrip("/")
    return plain[:-4] if plain.endswith(".git") else plain


def is_clone(target: Path) -> bool:
    return (target / ".git").exists() and shutil.which("git") is not None


def move_to_version(request: dict[str, Any], target: Path) -> None:
    """Checks out another version of a pack that is there. Raises: Failed if it has changes of its own."""
    state = pack_state(target, request)
    if state["trouble"]:
        raise Failed(state["trouble"])
    if state["is_right"] or not request["versions"]:
        return
    if printed(["git", "-C", str(target), "status", "--porcelain", "--untracked-files=no"]):
        raise Failed("its files were changed on the machine")
    env, options = git_options(request["url"])
    run(["git", "-C", str(target), *options, "fetch", "--tags", "--force", "origin"], env=env)
    check_out(request, target)


def check_out(request: dict[str, Any], target: Path) -> None:
    """Checks out the first of the refs that exists. Raises: Failed if none does, and it must."""
    env, options = git_options(request["url"])
    commit = resolved(target, request["versions"])
    for version in request["versions"] if commit is None else ():
        fetch = ["git", "-C", str(target), *options, "fetch", "--quiet", "origin", version]
        if re.fullmatch("[0-9a-f]{40}", version) and is_done(fetch, env):  # in no branch
            commit = resolved(target, [version])
    if commit is not None:
        run(["git", "-C", str(target), "checkout", "--quiet", "--detach", commit], env=env)
    elif request["versions"] and request.get("is_exact"):
        raise Failed(f"the repository has no {' or '.join(request['versions'])}")
    run(["git", "-C", str(target), *options, "submodule", "update", "--init", "--recursive"], env=env)


def resolved(target: Path, versions: list[str]) -> str | None:
    """Returns the commit of the first ref that exists: a tag, a branch, or the beginning of a commit."""
    for version in versions:
        names = [f"refs/tags/{version}", f"refs/remotes/origin/{version}"]
        if re.fullmatch("[0-9a-fA-F]{7,40}", version):
            names.append(version)
        for name in names:
            found = printed(
                ["git", "-C", str(target), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
            )
            if found:
                return found
    return None


def pack_state(target: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Returns what is there of a pack, whether it is what is wanted, and why it cannot become that."""
    state: dict[str, Any] = {"commit": None, "url": None, "is_right": False, "trouble": None, "version": None}
    if not target.exists():
        return state
    versions = wanted["versions"]
    if not is_clone(target):
        state["version"] = version = version_in(target)
        state["is_right"] = not versions or version in versions
        if not state["is_right"]:
            state["trouble"] = "it is there in another version, and not from git; remove it first"
        return state
    state["commit"] = head = printed(["git", "-C", str(target), "rev-parse", "HEAD"]) or None
    state["url"] = origin = re.sub(r"//[^/@]*@", "//", origin_of(target))  # without a password
    state["version"] = described(target)
    if wanted.get("is_from_url") and plain_origin(origin) != plain_origin(wanted["url"]):
        state["trouble"] = f"it is there from another repository: {origin or 'none'}"
        return state
    is_at = not versions or (head is not None and resolved(target, versions) == head)
    state["is_right"] = is_at and not (target / ".git" / UNFINISHED).exists()
    return state


def version_in(target: Path) -> str | None:
    """Returns the version that a pack tells which is not from git."""
    with contextlib.suppress(OSError):
        text = (target / "pyproject.toml").read_text(errors="replace")
        found = re.search(r"""^version\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
        return found.group(1) if found else None
    return None


def described(target: Path) -> str:
    """Returns the tag or the commit of a pack."""
    command = ["git", "-C", str(target), "describe", "--tags", "--always", "--abbrev=12"]
    return (printed(command) if is_clone(target) else "") or "not from git"


def printed(command: list[str]) -> str:
    """Returns what a command prints; empty if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)  # noqa: S603
        return output.decode(errors="replace").strip()
    return ""


def git_options(url: str) -> tuple[dict[str, str], list[str]]:
    """Returns the environment and the options of git: nothing but the web, and no question for a password."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    allowed = ["-c", "protocol.allow=never", "-c", "protocol.https.allow=always"]
    if url.startswith("http://"):
        allowed += ["-c", "protocol.http.allow=always"]
    return env, allowed


def clone(request: dict[str, Any], target: Path) -> None:
    if shutil.which("git") is None:
        raise Failed("there is no git on the machine")
    part = target.with_name(f"{target.name}.part.disabled")  # ComfyUI loads no directory of that ending
    shutil.rmtree(part, ignore_errors=True)
    env, options = git_options(request["url"])
    run(["git", *options, "clone", "--", request["url"], str(part)], env=env)
    check_out(request, part)
    (part / ".git" / UNFINISHED).touch()
    part.rename(target)


def install_requirements(comfyui: Process, words: list[str]) -> None:
    if is_done([comfyui.python, "-m", "pip", "--version"], comfyui.environment):
        command = [comfyui.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    elif shutil.which("uv") is not None:
        command = ["uv", "pip", "install", "--python", comfyui.python]
    else:
        raise Failed("the Python of ComfyUI has no pip, and there is no uv on the machine")
    run([*command, *words], env=comfyui.environment)


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


# --- packages


def install_pip(request: dict[str, Any]) -> dict[str, Any]:
    comfyui = find_comfyui(request["argv"])
    before = check_pip(comfyui, request["check_pip"], [])["all"]
    install_requirements(comfyui, ["--", *request["packages"]])
    is_changed = check_pip(comfyui, request["check_pip"], [])["all"] != before
    return {"done": f"Installed with pip: {', '.join(request['packages'])}", "is_changed": is_changed}


def check_pip(comfyui: Process, source: str, lines: list[str]) -> dict[str, Any]:
    """Returns the version of each requirement that is met, and of all packages, as `source` tells them."""
    process = subprocess.run(  # noqa: S603
        [comfyui.python, "-c", source],
        input=f"{json.dumps(lines)}\n".encode(),
        env=comfyui.environment,
        cwd="/",
        capture_output=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(process.stdout.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Failed("the Python of ComfyUI does not tell its packages") from None
    return found


def install_apt(request: dict[str, Any]) -> dict[str, Any]:
    if shutil.which("apt-get") is None:
        raise Failed("there is no apt-get on the machine")
    root, packages = as_root(), request["packages"]
    options = {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
    env = {**os.environ, **options}
    command = [*root, *(["env", *(f"{name}={value}" for name, value in options.items())] if root else [])]
    is_done([*command, "dpkg", "--configure", "-a"], env)  # of an installation that was interrupted
    run([*command, "apt-get", "update"], env=env)
    refuse_patterns(packages)
    run([*command, "apt-get", "install", "-y", "--", *packages], env=env)
    return {"done": f"Installed with apt: {', '.join(packages)}", "is_changed": True}


def as_root() -> list[str]:
    """Returns the words before a command that must run as root. Raises: Failed."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is not None and is_done(["sudo", "-n", "true"], dict(os.environ)):
        return ["sudo", "-n"]
    raise Failed(
        f"packages of apt need root, and the SSH user {user_name()} is not root and has no sudo "
        "without a password"
    )


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def refuse_patterns(packages: list[str]) -> None:
    """apt takes the name of a package that does not exist for a pattern of names. Raises: Failed."""
    said = printed(["apt-get", "-s", "install", "--", *packages])
    found = re.search(r"for (?:regex|glob|task) '([^']*)'", said)
    if found:
        raise Failed(f"there is no package {found.group(1)}")


def apt_version(package: str) -> str | None:
    """Returns the version of a package that is installed as wanted."""
    name, _, version = re.sub("/.*", "", package).partition("=")
    if shutil.which("dpkg-query") is None:
        return None
    said = printed(["dpkg-query", "-W", "-f=${db:Status-Status} ${Version}\\n", name]).splitlines()
    versions = [line.split()[1] for line in said if line.startswith("installed ") and len(line.split()) == 2]
    if versions:
        return versions[0] if version in ("", versions[0]) else None
    if shutil.which("apt-get") is not None and not version:  # a name that another package provides
        simulated = printed(["apt-get", "-s", "install", "--", name])
        if simulated and not re.search(r"^Inst |for (?:regex|glob|task) '", simulated, re.MULTILINE):
            return "provided by another package"
    return None


# --- what is there


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    for package in request["apt"]:
        say({"found": {"apt": package, "version": apt_version(package)}})
    if request["pip"]:
        told = check_pip(find_comfyui(request["argv"]), request["check_pip"], request["pip"])["found"]
        for number, line in enumerate(request["pip"]):
            say({"found": {"pip": line, "version": told[number]}})
    for wanted in request["packs"]:
        target = find_pack({**wanted, "directory": request["directory"]})
        state = pack_state(target, wanted)
        say({"found": {"pack": wanted["name"], "path": str(target) if target.exists() else None, **state}})
    for file in request["files"]:
        say({"found": file_state(Path(file["path"]), file, request.get("known") or {})})
    return {"done": "inspected"}


def file_state(path: Path, wanted: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {"file": wanted["path"], "size": None, "time": None, "sha256": None}
    try:
        stat = path.stat()
    except OSError:
        return state
    state.update(size=stat.st_size, time=stat.st_mtime_ns)
    size, time_ns, digest = known.get(wanted["path"]) or (None, None, None)
    if (size, time_ns) in ((stat.st_size, stat.st_mtime_ns), (stat.st_size, None)):
        state["sha256"] = digest
    elif wanted.get("is_hashed"):
        state["sha256"] = hashed(path)
    return state


def hashed(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        for piece in iter(lambda: content.read(PIECE_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


# --- the restart


def restart(request: dict[str, Any]) -> dict[str, Any]:
    comfyui = find_comfyui(request["argv"])
    check_may_end(comfyui.pid)
    if has_prompts(request["port"]):
        raise Busy
    os.kill(comfyui.pid, signal.SIGTERM)
    if not wait_for(lambda: has_ended(comfyui.pid), STOP_S):
        os.kill(comfyui.pid, signal.SIGKILL)
        wait_for(lambda: has_ended(comfyui.pid), STOP_S)
    if wait_for(lambda: is_started(request["argv"]), SUPERVISOR_S):
        return {"done": "ComfyUI was started again by its supervisor"}
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
    return {"done": f"ComfyUI was started again with its own command line; it prints to {log}"}


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
