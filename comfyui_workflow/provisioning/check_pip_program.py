"""A program for the Python of ComfyUI on an instance: tells which requirements of pip are met.

It needs Python 3.8. The standard input is a JSON list of requirements; it prints a JSON object:

    found   for each requirement the version that meets it, or null
    all     the versions of all packages, by name
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from importlib import import_module, metadata
from typing import Any

PLACES = ("packaging", "pip._vendor.packaging", "setuptools._vendor.packaging")


def requirement_class() -> Any:
    """Returns the reader of requirements, which pip and setuptools bring; None without them."""
    for place in PLACES:
        with contextlib.suppress(ImportError):
            return import_module(f"{place}.requirements").Requirement
    return None


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


REQUIREMENT = requirement_class()
INSTALLED: dict[str, Any] = {}
for each in metadata.distributions():
    if each.metadata["Name"]:
        INSTALLED.setdefault(plain(each.metadata["Name"]), each)


def version_of(line: str) -> str | None:
    """Returns the version that meets a requirement."""
    try:
        return version_at(line) if "://" in line else version_named(line)
    except Exception:  # noqa: BLE001 - pip itself says what is wrong with a requirement
        return None


def version_named(line: str, extra: str = "") -> str | None:
    if REQUIREMENT is None:
        found = re.fullmatch(r"([A-Za-z0-9._-]+)(?:==([^;\s*]+))?", line)
        there = INSTALLED.get(plain(found.group(1))) if found else None
        is_met = there is not None and found is not None and found.group(2) in (None, there.version)
        return str(there.version) if there is not None and is_met else None
    wanted = REQUIREMENT(line)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
        return "not for this machine"
    there = INSTALLED.get(plain(wanted.name))
    if there is None or not wanted.specifier.contains(there.version, prereleases=True):
        return None
    parts = [(part, each) for each in wanted.extras for part in there.requires or () if "extra" in part]
    is_whole = all(version_named(part, each) is not None for part, each in parts)
    return str(there.version) if is_whole else None


def version_at(line: str) -> str | None:
    """Returns the version of a package that was installed from this URL and ref: pip notes them."""
    url = line.rpartition("@ ")[2].strip().partition("#")[0]
    ref = ""
    if url.startswith("git+"):
        scheme, _, rest = url[4:].partition("://")
        rest, _, ref = rest.partition("@")
        url = f"{scheme}://{rest}"
    for there in INSTALLED.values():
        origin = json.loads(there.read_text("direct_url.json") or "{}")
        if (origin.get("url"), origin.get("vcs_info", {}).get("requested_revision", "")) == (url, ref):
            return str(there.version)
    return None


def main() -> None:
    versions = {name: there.version for name, there in INSTALLED.items()}
    print(json.dumps({"found": [version_of(line) for line in json.load(sys.stdin)], "all": versions}))  # noqa: T201


if __name__ == "__main__":
    main()
