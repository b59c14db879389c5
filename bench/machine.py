"""Description of the machine on which the figures were measured."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def description() -> str:
    """Returns one line: date, processor, memory, operating system, and versions of the relevant software."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("paramiko", "sshtunnel", "requests"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores of {_processor()}, {_memory_gb():.0f} GB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {libraries}, "
        f"{_openssh()}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _openssh() -> str:
    answer = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=False)
    return answer.stderr.partition(",")[0].strip()
