"""The systemd unit."""

import shutil
import subprocess
from pathlib import Path

import pytest

from comfyui_workflow.server_address import PREFIX
from comfyui_workflow.settings import Settings
from tests.packaging.conftest import REPOSITORY

UNIT = REPOSITORY / "packaging" / "comfyui-workflow.service"


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    text = (line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return [(name, value) for name, _, value in (line.partition("=") for line in text)]


def test_its_user_is_not_root_and_owns_the_data(lines: list[tuple[str, str]]) -> None:
    values = dict(lines)
    assert values["User"] not in ("root", "0", "")
    state_directory = f"/var/lib/{values['StateDirectory']}"
    settings = dict(value.split("=") for name, value in lines if name == "Environment")
    ours = {name.removeprefix(PREFIX).lower(): value for name, value in settings.items() if PREFIX in name}
    assert set(ours) <= set(Settings.model_fields)
    assert ours["data_dir"] == state_directory
    assert all(value.startswith(f"{state_directory}/") for name, value in ours.items() if name != "data_dir")


def test_systemd_takes_it(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("not here: systemd-analyze")
    copy = tmp_path / UNIT.name
    program = "/opt/comfyui-workflow/bin/comfyui-workflow"
    assert f"ExecStart={program} serve\n" in UNIT.read_text()
    copy.write_text(UNIT.read_text().replace(f"ExecStart={program}", "ExecStart=/bin/true"))
    said = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
