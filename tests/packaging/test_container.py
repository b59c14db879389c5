"""The Dockerfile and compose.yaml: no root user, one volume, a health check, no secrets."""

import fnmatch
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from comfyui_workflow.server_address import PREFIX
from comfyui_workflow.settings import Settings
from tests.cli.canned_server import CannedServer
from tests.packaging.conftest import REPOSITORY

SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
SECRETS = {name for name in SETTINGS if re.search("TOKEN|SECRET|PASSPHRASE", name)}


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Returns (name, arguments) of each instruction in the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


@pytest.fixture(scope="module")
def last_stage(instructions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    begin = max(index for index, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[begin:]


@pytest.fixture(scope="module")
def variables(last_stage: list[tuple[str, str]]) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in _all(last_stage, "ENV").split())
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    services = _compose()["services"]
    assert list(services) == ["comfyui-workflow"]
    found: dict[str, Any] = services["comfyui-workflow"]
    return found


def test_it_is_small_and_its_user_is_not_root(last_stage: list[tuple[str, str]]) -> None:
    assert _all(last_stage, "FROM").endswith("-slim")
    assert _all(last_stage, "USER") == "${UID}"
    assert int(_all(last_stage, "ARG").partition("=")[2]) > 0
    names = [name for name, _ in last_stage]
    assert "RUN" not in names[names.index("USER") :]


def test_what_is_kept_is_in_the_volume(last_stage: list[tuple[str, str]], variables: dict[str, str]) -> None:
    volume = _all(last_stage, "VOLUME")
    assert variables[f"{PREFIX}DATA_DIR"] == volume
    assert variables[f"{PREFIX}STATE_FILE"].startswith(f"{volume}/")


def test_it_listens_beyond_loopback_and_brings_no_secret(variables: dict[str, str]) -> None:
    assert variables[f"{PREFIX}HOST"] == "0.0.0.0"
    assert {name for name in variables if name.startswith(PREFIX)} <= SETTINGS - SECRETS


def test_what_is_copied_is_there_and_not_ignored(instructions: list[tuple[str, str]]) -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    let_through = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = [rest.split()[:-1] for name, rest in instructions if name == "COPY" and "--from" not in rest]
    sources = {source for each in copied for source in each}
    assert sources == set(let_through)
    assert all((REPOSITORY / source).exists() for source in sources)
    assert not any(fnmatch.fnmatch(".env", line) for line in let_through)


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_the_health_check_tells(last_stage: list[tuple[str, str]], status: int, is_healthy: bool) -> None:
    words = json.loads(_all(last_stage, "HEALTHCHECK").partition("CMD ")[2])
    assert words[:2] == ["python", "-c"]
    with CannedServer() as canned:
        canned.will_answer((status, {}))
        code = words[2].replace("http://127.0.0.1:5000", canned.url)
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)
        assert (ended.returncode == 0) == is_healthy
        assert canned.requests[0][1] == "/health"


def test_compose_publishes_on_loopback_only(service: dict[str, Any], variables: dict[str, str]) -> None:
    port = variables[f"{PREFIX}PORT"]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_takes_the_token_from_the_environment_and_requires_it(service: dict[str, Any]) -> None:
    assert set(service["environment"]) <= SETTINGS
    token = service["environment"][f"{PREFIX}API_TOKEN"]
    assert token.startswith(f"${{{PREFIX}API_TOKEN:?")
    for value in service["environment"].values():
        assert value.startswith("${")


def test_compose_keeps_the_data_and_reads_the_key_from_a_file(
    service: dict[str, Any], variables: dict[str, str], last_stage: list[tuple[str, str]]
) -> None:
    assert service["volumes"] == [f"data:{_all(last_stage, 'VOLUME')}"]
    assert "data" in _compose()["volumes"]
    (secret,) = service["secrets"]
    assert variables[f"{PREFIX}SSH_KEY"] == f"/run/secrets/{secret}"
    assert list(_compose()["secrets"][secret]) == ["file"]


def test_compose_lets_it_do_little(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def _all(instructions: list[tuple[str, str]], wanted: str) -> str:
    return " ".join(rest for name, rest in instructions if name == wanted)


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return found
