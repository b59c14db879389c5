"""Tests of the settings: read from the environment, and complete in the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.app import connection_options
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.server_address import PREFIX
from comfyui_workflow.settings import Settings, load_settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_WORKFLOW_PORT", "5001")
    monkeypatch.setenv("COMFYUI_WORKFLOW_CORS_HOSTS", "http://a.example:3000, b.example,")
    monkeypatch.setenv("COMFYUI_WORKFLOW_READ_DIRS", "/srv/a,/srv/b")
    monkeypatch.setenv("COMFYUI_WORKFLOW_API_TOKEN", "a token")
    settings = load_settings()
    assert settings.port == 5001
    allowed = {"http://a.example:3000", "http://b.example", "https://b.example"}
    assert set(map(str, settings.cors_origins)) == allowed
    assert settings.readable_dirs == (Path("/srv/a"), Path("/srv/b"))
    assert "a token" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("PORT", "x"),
        ("LOG_LEVEL", "LOUD"),
        ("CORS_HOSTS", "*"),
        ("CORS_HOSTS", "null"),
        ("LOCAL_PORT_ORIGINS", "file:///"),
        ("CONTACT_PATIENCE_S", "-1"),
        ("PROVISION_HOSTS", "huggingface.co/"),
        ("PROVISION_HOSTS", "ftp://host"),
        ("PROVISION_TOKENS", "hf_secret"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError, match=PREFIX + name):
        load_settings()


@pytest.mark.parametrize(
    ("given", "writable"),
    [
        ({}, None),
        ({"output_dir": "/srv/out"}, None),
        ({"api_token": "t"}, ("/srv/data",)),
        ({"api_token": "t", "output_dir": "/srv/out"}, ("/srv/data", "/srv/out")),
        ({"write_dirs": ("/srv/a",), "output_dir": "/srv/out"}, ("/srv/a", "/srv/out")),
    ],
)
def test_where_outputs_go_they_may_go(given: dict[str, object], writable: tuple[str, ...] | None) -> None:
    settings = Settings(data_dir=Path("/srv/data"), **given)
    assert settings.writable_dirs == (None if writable is None else tuple(map(Path, writable)))


def test_names_of_a_worker_are_heard_where_ours_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"ENDPOINT_URL": "http://s3", "ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "hidden"}
    for name, value in keys.items():
        monkeypatch.setenv(f"BUCKET_{name}", value)
    monkeypatch.setenv("REFRESH_WORKER", "true")
    monkeypatch.setenv("WEBSOCKET_RECONNECT_DELAY_S", "")
    monkeypatch.setenv("COMFY_LOG_LEVEL", "CRITICAL")
    assert load_settings().log_level == "CRITICAL"
    monkeypatch.setenv("COMFYUI_WORKFLOW_LOG_LEVEL", "ERROR")
    settings = load_settings()
    assert settings.bucket is not None
    assert (settings.bucket.endpoint_url, settings.bucket.secret_access_key) == ("http://s3", "hidden")
    assert (settings.refresh_worker, settings.log_level) == (True, "ERROR")
    assert "hidden" not in repr(settings)


def test_a_bad_value_under_such_a_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSOCKET_RECONNECT_DELAY_S", "soon")
    with pytest.raises(ConfigurationError, match=r"^WEBSOCKET_RECONNECT_DELAY_S"):
        load_settings()


def test_a_bucket_without_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", "http://s3")
    with pytest.raises(ConfigurationError, match="BUCKET_ACCESS_KEY_ID"):
        load_settings()


def test_every_setting_is_documented_and_nothing_else() -> None:
    documented = set(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \|", DOCUMENT.read_text(), flags=re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields}


def test_the_document_says_what_the_code_says() -> None:
    for name, field in Settings.model_fields.items():
        assert f"`{PREFIX}{name.upper()}` |" in DOCUMENT.read_text()
        assert f"| {field.description} |" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("given", "is_used"),
    [
        ({}, True),
        ({"api_token": "t" * 16}, False),
        ({"api_token": "t" * 16, "ssh_agent": True}, True),
        ({"ssh_agent": False}, False),
    ],
)
def test_the_ssh_agent_is_for_its_own_user(given: dict[str, Any], is_used: bool) -> None:
    assert load_settings(**given).uses_ssh_agent is is_used


@pytest.mark.parametrize("token", [None, "t" * 16])
def test_a_user_without_a_home_directory_names_the_data_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str | None
) -> None:
    """As in a container that runs as any user id."""
    for name in ("HOME", "XDG_DATA_HOME", f"{PREFIX}DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2_000_000_000)
    with pytest.raises(ConfigurationError, match=rf"no home directory: set {PREFIX}DATA_DIR"):
        load_settings()
    settings = load_settings(data_dir=tmp_path, api_token=token)
    assert settings.data_dir == tmp_path
    assert settings.key_dirs == ((tmp_path,) if token else None)


def test_a_path_may_begin_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands ~ in a crontab, a unit of systemd or the environment of a container."""
    monkeypatch.setenv("HOME", "/home/me")
    given = {"DATA_DIR": "~/data", "OUTPUT_DIR": "~", "READ_DIRS": "~/in, /srv/~", "SSH_KEY": "~/.ssh/gpu"}
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, value)
    settings = load_settings()
    assert (settings.data_dir, settings.output_dir) == (Path("/home/me/data"), Path("/home/me"))
    assert settings.read_dirs == (Path("/home/me/in"), Path("/srv/~"))
    assert settings.ssh_key == Path("/home/me/.ssh/gpu")
    monkeypatch.setenv(f"{PREFIX}DATA_DIR", "~nobody-of-that-name/data")
    with pytest.raises(ConfigurationError, match=f"{PREFIX}DATA_DIR: .*there is no such home directory"):
        load_settings()


def test_one_limit_tells_how_long_an_instance_may_be_silent() -> None:
    options = connection_options(Settings(ssh_silence_limit_s=6), None)
    limits = (options.keepalive_interval_s, options.silence_limit_s, options.channel_timeout_s)
    assert limits == (2, 6, 8)
    usual = connection_options(Settings(), None)
    assert (usual.keepalive_interval_s, usual.silence_limit_s, usual.channel_timeout_s) == (5, 15, 20)
