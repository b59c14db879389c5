"""Clients and npm packages that others wrote, as they are: tests/install_foreign_clients.sh."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

INSTALLED = Path(sys.prefix) / "foreign_clients"
LIMIT_S = 60.0


def installed_libraries(libraries: str) -> Path:
    """Returns their directory; skips the test where they are not installed."""
    installed = INSTALLED / libraries
    if not (installed / ".pinned").exists():
        pytest.skip(f"{installed} is not there: tests/install_foreign_clients.sh could not install it")
    return installed


def run_client(
    script: Path, libraries: str, *arguments: str, tmp_path: Path, **environment: str
) -> dict[str, Any]:
    """Returns its last line of output. The script is copied beside its libraries, where node looks for
    them."""
    installed = installed_libraries(libraries)
    is_python = script.suffix == ".py"
    copied = Path(shutil.copy(script, tmp_path))
    if not is_python and not (tmp_path / "node_modules").exists():
        (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    command = [sys.executable, "-S", "-P"] if is_python else ["node"]
    done = subprocess.run(
        [*command, str(copied), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(installed),
            "HOME": str(tmp_path),
            **environment,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
