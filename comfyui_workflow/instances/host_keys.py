"""Which machine answers at which address: trust on first use, in our own known_hosts file.

KnownHosts(path)
    check(host, port, key, *, pinned_fingerprint=None)   raises HostKeyRefused
    forget(host, port) -> bool                           True when there was something to forget
    fingerprint(host, port) -> str | None                "SHA256:..."
"""

from pathlib import Path


class KnownHosts:
    def __init__(self, path: Path) -> None:
        self.path = path

    def forget(self, host: str, port: int) -> bool:
        raise NotImplementedError

    def fingerprint(self, host: str, port: int) -> str | None:
        raise NotImplementedError
