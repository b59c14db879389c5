"""A program for the instance, sent over SSH and never stored there: downloads one file into a directory.

It needs Python 3.7 and its standard library only. The first line of the standard input is the request, a JSON
object:

    url, headers        headers are for the host of the URL only; a redirect to another host gets none of them
    directory, name     of the file; the name may have a subfolder
    part                a key of the URL, part of the name of the partial file
    hosts               hosts that a redirect may lead to although their address is not public
    size, sha256        what the file must have; null if that is not known

It prints {"comfyui-workflow": {...}} in a line: `done` and `total` bytes while it works; then `placed` (the
path) with `size`, `sha256` and `existed`; or `error` (a sentence) with `is_transient`.

How it works. The partial file `.NAME.KEY.part` is beside the target, so that placing it is one rename within
one file system, and it is found again after a cut. The program that downloads holds a lock on it; another one
that wants the same file waits for it, and then finds the file in place. The program stops when its standard
input ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

MARK = "comfyui-workflow"
PIECE_BYTES = 1024 * 1024
REPORT_S = 0.5
ALIVE_S = 5
"""A name or a connection may take longer than any report; the server must not believe that all is over."""
SOCKET_TIMEOUT_S = 30
MOST_REDIRECTS = 10
MOST_FAILURES = 5
"""Attempts in a row that brought not one byte."""
FULL = (errno.ENOSPC, errno.EDQUOT)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""A network file system may have no locks. Then the checks of size and SHA-256 notice two writers."""
GB = 1000**3


class Refused(Exception):
    """The file cannot be had, or not be stored; a further attempt does not help."""


class Interrupted(Exception):
    """The transfer broke; a further attempt may succeed."""


class Whole(Exception):
    """There is nothing more to download."""


class Reporter:
    def __init__(self) -> None:
        self.said_s = 0.0

    def progress(self, done: int, total: int | None, word: str = "done") -> None:
        """Prints at most twice a second."""
        if time.monotonic() - self.said_s >= REPORT_S:
            self.said_s = time.monotonic()
            say({word: done, "total": total})


def say(found: dict[str, Any]) -> None:
    """Prints one line. A short write to a pipe is atomic, so two threads may print."""
    os.write(1, f"{json.dumps({MARK: found})}\n".encode())


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline().decode())
    for work in (stop_with_input, say_alive):
        threading.Thread(target=work, daemon=True).start()
    try:
        say(Download(request).run())
    except Refused as error:
        say({"error": str(error), "is_transient": False})
    except Interrupted as error:
        say({"error": str(error), "is_transient": True})
    except OSError as error:
        is_full = error.errno in FULL
        reason = "the disk of the machine is full" if is_full else error.strerror or str(error)
        say({"error": f"{request['name']} cannot be stored: {reason}", "is_transient": False})


def stop_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def say_alive() -> None:
    while True:
        time.sleep(ALIVE_S)
        say({})


class Download:
    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.name = request["name"]
        self.host = urllib.parse.urlsplit(request["url"]).hostname or ""
        self.target = Path(request["directory"], self.name)
        partial = f".{self.target.name[:150]}.{request['part']}.part"
        self.part = self.target.with_name(partial)
        self.tag = self.target.with_name(f"{partial}.etag")
        self.size = request.get("size")
        self.sha256 = request.get("sha256")
        self.report = Reporter()

    def run(self) -> dict[str, Any]:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            if self.target.exists():
                return self.existing()
            with self.part.open("ab", buffering=0) as file:
                self.lock(file)
                if not self.is_current(file) or self.target.exists():
                    continue
                digest = self.fetch_and_check(file)
                os.fsync(file.fileno())
                self.part.rename(self.target)
            self.remove(self.tag)
            return self.placed(digest, existed=False)

    def fetch_and_check(self, file: IO[bytes]) -> str:
        try:
            self.fetch(file)
            return self.check(file)
        finally:
            if not os.fstat(file.fileno()).st_size:
                self.remove(self.part)
                self.remove(self.tag)

    def existing(self) -> dict[str, Any]:
        if self.sha256 and self.size and self.target.stat().st_size != self.size:
            raise Refused(f"{self.name} is on the machine already, with another size than the workflow wants")
        self.remove(self.part)
        self.remove(self.tag)
        return self.placed(None, existed=True)

    def placed(self, digest: str | None, *, existed: bool) -> dict[str, Any]:
        size = self.target.stat().st_size
        return {"placed": str(self.target), "size": size, "sha256": digest, "existed": existed}

    def lock(self, file: IO[bytes]) -> None:
        """Waits while another program downloads this file, and reports its progress."""
        while True:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self.report.progress(os.fstat(file.fileno()).st_size, self.size)
                time.sleep(0.2)
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
                return

    def is_current(self, file: IO[bytes]) -> bool:
        """False if the file was placed or removed since it was opened."""
        try:
            return os.path.samestat(self.part.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def fetch(self, file: IO[bytes]) -> None:
        failures = 0
        while True:
            before = os.fstat(file.fileno()).st_size
            try:
                self.attempt(file, before)
                return
            except Whole:
                return
            except Interrupted as error:
                reason = str(error)
            except (http.client.HTTPException, ssl.SSLError, OSError) as error:
                if getattr(error, "errno", None) in FULL:
                    self.remove(self.part)
                    raise
                reason = described(error, self.host)
            has_more = os.fstat(file.fileno()).st_size > before
            failures = 0 if has_more else failures + 1
            if failures >= MOST_FAILURES:
                raise Interrupted(f"{self.name} cannot be downloaded: {reason}")
            time.sleep(min(0.25 * 2**failures, 4))

    def attempt(self, file: IO[bytes], start: int) -> None:
        with contextlib.closing(self.open(start)) as answer:
            start = self.begin(file, answer, start)
            done, total = start, self.size
            while True:
                piece = answer.read1(PIECE_BYTES)
                if not piece:
                    break
                write_all(file, piece)
                done += len(piece)
                if total is not None and done > total:
                    file.truncate(0)
                    raise Refused(f"{self.host} sends more of {self.name} than it announced")
                self.report.progress(done, total)
        if total is not None and done < total:
            raise Interrupted(f"{self.host} ends the transfer early")

    def open(self, start: int) -> Any:
        """Follows redirects, and returns the answer with the file. Raises: Refused, Interrupted, Whole."""
        url, headers = self.request["url"], dict(self.request.get("headers") or {})
        for _ in range(MOST_REDIRECTS):
            answer = ask(url, dict(headers, **self.range_headers(start)))
            self.note_linked(answer)
            if answer.status not in (301, 302, 303, 307, 308):
                return self.accepted(answer, start)
            answer.close()
            target = urllib.parse.urljoin(url, answer.headers.get("Location") or "")
            headers = headers if origin(target) == origin(url) else {}
            self.check_redirect(url, target)
            url = target
        raise Refused(f"{self.host} redirects too often")

    def range_headers(self, start: int) -> dict[str, str]:
        if not start:
            return {}
        with contextlib.suppress(OSError), self.tag.open() as file:
            return {"Range": f"bytes={start}-", "If-Range": file.read()}
        return {"Range": f"bytes={start}-"}

    def note_linked(self, answer: Any) -> None:
        """Hugging Face tells size and SHA-256 of a file in the redirect to its storage."""
        size, digest = (
            answer.headers.get("X-Linked-Size"),
            (answer.headers.get("X-Linked-ETag") or "").strip('"'),
        )
        if size and size.isdigit():
            self.expect(int(size))
        if re.fullmatch("[0-9a-f]{64}", digest):
            if self.sha256 and self.sha256 != digest:
                raise Refused(f"{self.host} has another file {self.name} than the workflow wants (SHA-256)")
            self.sha256 = digest

    def expect(self, size: int) -> None:
        if self.size is not None and size != self.size:
            raise Refused(f"{self.name} has {size} bytes at {self.host}, not the expected {self.size}")
        self.size = size

    def check_redirect(self, url: str, target: str) -> None:
        parts = urllib.parse.urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{self.host} redirects to something that is no web address")
        if origin(target) in self.request["hosts"] or origin(target) == origin(url):
            return
        if parts.scheme != "https":
            raise Refused(f"{self.host} redirects to {parts.hostname}, which is not encrypted")
        if not urllib.request.getproxies().get("https") and not is_public(parts.hostname, parts.port or 443):
            raise Refused(f"{self.host} redirects to {parts.hostname}, which is no public address")

    def accepted(self, answer: Any, start: int) -> Any:
        status = answer.status
        if status == 416 and start:
            total = re.match(r"bytes \*/(\d+)$", answer.headers.get("Content-Range") or "")
            answer.close()
            if total and int(total.group(1)) == start:
                self.expect(start)
                raise Whole
            self.remove(self.tag)
            os.truncate(self.part, 0)
            raise Interrupted(f"{self.name} has changed")
        if status in (200, 206):
            kind = answer.headers.get_content_type()
            if kind in ("text/html", "application/xhtml+xml"):
                answer.close()
                raise Refused(f"{self.host} sends a web page instead of {self.name}: is a login needed?")
            return answer
        answer.close()
        if status in (401, 403):
            raise Refused(
                f"{self.host} answers {status} for {self.name}: it needs a token, "
                "or its licence has to be accepted on its page"
            )
        error = Interrupted if status >= 500 or status in (408, 425, 429) else Refused
        raise error(f"{self.host} answers {status} for {self.name}")

    def begin(self, file: IO[bytes], answer: Any, start: int) -> int:
        """Returns the position at which the answer begins, where the file ends now."""
        length = answer.headers.get("Content-Length") or ""
        if answer.status == 206:
            found = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", answer.headers.get("Content-Range") or "")
            if not found or int(found.group(1)) != start:
                raise Interrupted(f"{self.host} sends another part of {self.name} than was asked for")
            if found.group(2) != "*":
                self.expect(int(found.group(2)))
        else:
            file.truncate(0)
            start = 0
            if length.isdigit():
                self.expect(int(length))
        etag = answer.headers.get("ETag") or ""
        self.remove(self.tag)
        if etag and not etag.startswith("W/"):
            with self.tag.open("w") as tag:
                tag.write(etag)
        if self.size is not None:
            self.check_space(self.size - start)
        return start

    def check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise Refused(
                f"{self.name} needs {needed / GB:.2f} GB more, and the disk of the machine has "
                f"{free / GB:.2f} GB free"
            )

    def check(self, file: IO[bytes]) -> str:
        """Returns the SHA-256 if the file is whole. A wrong file is removed, so that it is not resumed."""
        size = os.fstat(file.fileno()).st_size
        if self.size is not None and size != self.size:
            os.truncate(self.part, 0)
            raise Refused(f"{self.name} has {size} bytes, not the expected {self.size}")
        if size == 0:
            raise Refused(f"{self.name} is empty at {self.host}")
        digest, done = hashlib.sha256(), 0
        with self.part.open("rb") as content:
            for piece in iter(lambda: content.read(PIECE_BYTES), b""):
                digest.update(piece)
                done += len(piece)
                self.report.progress(done, size, "checked")
        if self.sha256 and digest.hexdigest() != self.sha256:
            os.truncate(self.part, 0)
            raise Refused(f"{self.name} arrived with other content than it should have (SHA-256)")
        return digest.hexdigest()

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def write_all(file: IO[bytes], piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(url: str, headers: dict[str, str]) -> Any:
    """Returns the answer, whatever its status."""
    all_headers = {"User-Agent": "comfyui-workflow", "Accept-Encoding": "identity"}
    all_headers.update(headers)
    opener = urllib.request.build_opener(NoRedirect, urllib.request.HTTPSHandler(context=tls()))
    try:
        return opener.open(urllib.request.Request(url, headers=all_headers), timeout=SOCKET_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as answer:
        return answer


def tls() -> ssl.SSLContext:
    """Trusts the authorities of the machine; if it has none, those that pip brings."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not Path("/etc/ssl/certs").is_dir():
        with contextlib.suppress(ImportError):
            from pip._vendor import certifi  # noqa: PLC0415 - many machines have none

            context.load_verify_locations(certifi.where())
    return context


def origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return "{}://{}".format(parts.scheme, parts.netloc.rpartition("@")[2].lower())


def is_public(host: str, port: int) -> bool:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global for each in found)


def described(error: Exception, host: str) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.timeout):
        return f"{host} does not answer"
    return "{}: {}".format(host, getattr(reason, "strerror", None) or reason)


if __name__ == "__main__":
    main()
