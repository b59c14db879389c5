"""The settings. Each is an environment variable: `COMFYUI_WORKFLOW_` and its name in capitals.

Nothing else reads the environment, but for `server_address.py`, which reads four of them faster."""

import ipaddress
import os
import pwd
from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from comfyui_workflow.access.origins import Origin, origins_of_host, parse_origin
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.files.file_types import InputKind
from comfyui_workflow.runs.job import Bucket
from comfyui_workflow.server_address import DEFAULT_HOST, DEFAULT_PORT, PREFIX

SHORTEST_TOKEN = 16
"""Of a server that others can reach: guesses are slowed down, but many addresses may guess together."""
WORKER_NAMES = {
    "bucket_endpoint_url": "BUCKET_ENDPOINT_URL",
    "bucket_access_key_id": "BUCKET_ACCESS_KEY_ID",
    "bucket_secret_access_key": "BUCKET_SECRET_ACCESS_KEY",
    "refresh_worker": "REFRESH_WORKER",
    "websocket_reconnect_delay_s": "WEBSOCKET_RECONNECT_DELAY_S",
    "log_level": "COMFY_LOG_LEVEL",
}
"""Names that a worker-comfyui has for its settings, heard where ours is not set."""
Words = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]


class Settings(BaseSettings):
    """Frozen; built once at start. Lists are written with commas between."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = Field(
        DEFAULT_HOST, description="Address to listen on. Anything but loopback needs `API_TOKEN`."
    )
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    server_url: str | None = Field(
        None,
        description="Where the commands find the server, as `http://127.0.0.1:5000`. Unset: at `HOST` and "
        "`PORT`.",
    )
    api_token: SecretStr | None = Field(
        None,
        description="With it every route but `/health` needs `Authorization: Bearer <token>`, "
        "and a browser logs in. Beyond loopback it has 16 characters at least.",
    )
    data_dir: Path = Field(
        user_data_path("comfyui-workflow", appauthor=False),
        description="Where the record of every run, uploads and known host keys are kept.",
    )
    instances_file: Path | None = Field(
        None,
        description="Where the named instances are kept. Unset: `instances.json` in the data directory.",
    )
    state_file: Path = Field(
        Path("/tmp/comfyui_workflow_state.json"),  # noqa: S108 - the specification's place; replaced, never followed
        description="Mirror of the latest run, as `/comfyui/workflow/state` answers it.",
    )
    output_dir: Path | None = Field(
        None,
        description="Where outputs go when a request does not say: `/tmp/comfyui_outputs`, or `outputs` in "
        "the data directory where only that may be written.",
    )
    read_dirs: Paths = Field(
        (),
        description="Directories the API may read workflows and images from. Empty: any on loopback, "
        "without a token; otherwise the data directory only.",
    )
    write_dirs: Paths = Field(
        (), description="Directories the API may write outputs to. Empty: as `READ_DIRS`."
    )
    input_kinds: Words = Field(
        ("image", "video", "audio", "3d", "latent"),
        description="What input files may be, by their content: `image`, `video`, `audio`, `3d`, `latent`, "
        "`text`; or `any`. Files that were sent to the server are not looked at for it.",
    )
    cors_hosts: Words = Field(
        ("http://10.0.78.66", "http://localhost", "http://127.0.0.1"),
        description="Origins whose pages may use the API from a browser, exactly as a browser tells them: "
        "`http://localhost:3000`. A host alone means its usual ports, 80 and 443. The server's own page "
        "always may; pages of a local port never.",
    )
    local_port_origins: Words = Field(
        (),
        description="Origins whose pages may use local ports, besides each port's own; written as those of "
        "`CORS_HOSTS`.",
    )
    allowed_hosts: Words = Field(
        (), description="Host names under which the server may be reached, besides loopback and `HOST`."
    )
    local_users: Words = Field(
        (),
        description="Users of this machine, by name or number, who may use a server without a token, and "
        "local ports, besides its own user and root; `any` lets all of them. Linux tells whose a connection "
        "is.",
    )
    max_upload_mb: int = Field(512, ge=1, description="Largest request body, in MB.")
    ssh_key: Path | None = Field(None, description="Private key for instances whose ssh string names none.")
    ssh_key_passphrase: SecretStr | None = Field(None, description="Passphrase of encrypted private keys.")
    ssh_key_dirs: Paths = Field(
        (),
        description="Directories that `-i` in an ssh string may name keys from. Empty: any on loopback, "
        "without a token; otherwise `~/.ssh` and the data directory.",
    )
    ssh_agent: bool = Field(False, description="Also try the keys of the SSH agent.")
    ssh_host_key: str | None = Field(
        None,
        description="Fingerprint (`SHA256:...`) that every instance must show: trust on first use is off.",
    )
    local_instances: bool | None = Field(
        None,
        description="Whether an ssh string may lead to this machine. Unset: on loopback without a token.",
    )
    contact_patience_s: float = Field(
        120,
        ge=0,
        description="How long to try to reach an instance before its prompt is submitted, in seconds.",
    )
    lost_contact_patience_s: float = Field(
        86_400, ge=0, description="The same once the prompt is submitted: its outputs are waiting there."
    )
    resubmissions: int = Field(
        1, ge=0, description="How often a prompt that was running when ComfyUI was restarted is run again."
    )
    stall_limit_s: float = Field(
        3600,
        ge=0,
        description="How long a prompt may run without a sign of progress before its ComfyUI counts as "
        "broken, in seconds; 0 means for ever.",
    )
    in_doubt_s: float = Field(
        10,
        ge=1,
        description="How long a prompt whose answer was lost is looked for on the instance before it is sent "
        "again, in seconds.",
    )
    late_copies_s: float = Field(
        300,
        ge=0,
        description="How long the queue of an instance is looked at for late copies of a prompt that had to "
        "be sent more than once, after its end, in seconds; 0 turns it off. A copy is dropped.",
    )
    largest_answer_mb: int = Field(
        64,
        ge=1,
        description="Largest answer of an instance to `/object_info`, `/queue` or `/history`, in MB. One "
        "that sends more is not asked any more, and runs there fail with the reason.",
    )
    largest_message_mb: int = Field(
        32, ge=1, description="Largest websocket message of an instance, in MB; as `LARGEST_ANSWER_MB`."
    )
    answer_timeout_s: float = Field(
        120,
        ge=1,
        description="How long a whole answer of an instance may take once it was asked, in seconds; as "
        "`LARGEST_ANSWER_MB`. Files are bounded by their rate instead: 256 bytes a second at least.",
    )
    prompts_per_instance: int = Field(
        2,
        ge=1,
        description="How many prompts of ours are on one instance at a time; the other runs wait here, where "
        "they can be reordered, cancelled and given to another instance.",
    )
    move_after_s: float = Field(
        120,
        ge=0,
        description="How long an instance may be away before a prompt that was submitted there is given to "
        "another one that is ready, in seconds; ten times as long if its outputs are waiting there. For runs "
        "of `any` only.",
    )
    any_patience_s: float = Field(
        86_400, ge=0, description="How long runs of `any` wait while no instance is ready, in seconds."
    )
    idle_warning_s: float = Field(
        900,
        ge=0,
        description="After how long without work a named instance is warned of, in seconds; so long it stays "
        "connected. 0 means never.",
    )
    webhook_private: bool = Field(
        False,
        description="Whether webhooks, and images given by URL, may lead to private, loopback, link-local "
        "and metadata addresses.",
    )
    webhook_timeout_s: float = Field(
        30, ge=1, description="How long one try to deliver a webhook may take in all, in seconds."
    )
    webhook_patience_s: float = Field(
        86_400, ge=0, description="How long a webhook that is not taken is tried again, in seconds."
    )
    webhook_kept_s: float = Field(
        604_800,
        ge=0,
        description="How long a webhook that was delivered, or given up, can be looked at and sent again, in "
        "seconds.",
    )
    uploads_kept_s: float = Field(
        2_592_000,
        ge=0,
        description="How long files that were sent to the server are kept after a run has named them last, "
        "in seconds.",
    )
    default_endpoint: str = Field(
        "any",
        description="Where jobs of the bare paths go (`/run`, without `/v2/<endpoint_id>`): an instance, a "
        "tag, `any`, or an ssh string.",
    )
    rate_limits: bool = Field(
        False, description="Whether an endpoint of jobs may be asked only as often as one of RunPod."
    )
    bucket_endpoint_url: str | None = Field(
        None,
        description="With it, outputs of jobs are brought to this bucket, and answered as URLs. As "
        "`BUCKET_ENDPOINT_URL` too, and so are the next two.",
    )
    bucket_access_key_id: str | None = Field(None, description="Who brings them there.")
    bucket_secret_access_key: SecretStr | None = Field(None, description="The secret of that key.")
    bucket_name: str | None = Field(
        None,
        description="Unset: as the endpoint's URL names it, first in its path or its host; or else the month "
        "and the year, as `03-26`.",
    )
    refresh_worker: bool = Field(
        False,
        description="Whether the memory of its instance is freed after each job. As `REFRESH_WORKER` too.",
    )
    websocket_reconnect_delay_s: float = Field(
        5,
        ge=0.5,
        description="How long at most until a websocket that broke is tried again, in seconds. As "
        "`WEBSOCKET_RECONNECT_DELAY_S` too.",
    )
    connection_idle_s: float = Field(300, ge=0, description="A connection nobody uses is closed after this.")
    log_level: str = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`. As `COMFY_LOG_LEVEL` too."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is said first wins."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _as_a_worker_has_them())

    @field_validator(
        "local_users",
        "input_kinds",
        "cors_hosts",
        "local_port_origins",
        "allowed_hosts",
        "read_dirs",
        "write_dirs",
        "ssh_key_dirs",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("local_users")
    @classmethod
    def _are_users(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each != "any" and _uid(each) is None:
                raise ValueError(f"there is no user {each!r} on this machine")
        return value

    @field_validator("input_kinds")
    @classmethod
    def _are_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = [*InputKind, "any"]
        for each in value:
            if each not in known:
                raise ValueError(f"{each!r} is none of {', '.join(known)}")
        return value

    @field_validator("cors_hosts", "local_port_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _origins(each):
                raise ValueError(f"{each!r} is no origin: write one as http://localhost:3000")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @property
    def other_users(self) -> frozenset[int] | None:
        """Their numbers. None: all."""
        found = (_uid(each) for each in self.local_users)
        return None if "any" in self.local_users else frozenset(uid for uid in found if uid is not None)

    @property
    def allowed_kinds(self) -> frozenset[InputKind] | None:
        """None: any."""
        return None if "any" in self.input_kinds else frozenset(map(InputKind, self.input_kinds))

    @property
    def cors_origins(self) -> frozenset[Origin]:
        return frozenset[Origin]().union(*map(_origins, self.cors_hosts))

    @property
    def origins_at_local_ports(self) -> frozenset[Origin]:
        return frozenset[Origin]().union(*map(_origins, self.local_port_origins))

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private_use(self) -> bool:
        """Only a person at this machine can reach the server, and may do there what they may anyway."""
        return self.is_loopback and self.api_token is None

    @property
    def instances_path(self) -> Path:
        return (self.instances_file or self.data_dir / "instances.json").expanduser()

    @property
    def readable_dirs(self) -> tuple[Path, ...] | None:
        """None: any."""
        return self.read_dirs or (None if self.is_private_use else (self.data_dir,))

    @property
    def writable_dirs(self) -> tuple[Path, ...] | None:
        """None: any. Who says where outputs go allows them there."""
        allowed = self.write_dirs or (None if self.is_private_use else (self.data_dir,))
        return allowed if allowed is None or self.output_dir is None else (*allowed, self.output_dir)

    @property
    def key_dirs(self) -> tuple[Path, ...] | None:
        private = (Path("~/.ssh").expanduser(), self.data_dir)
        return self.ssh_key_dirs or (None if self.is_private_use else private)

    @property
    def default_output_dir(self) -> Path:
        if self.output_dir is not None:
            return self.output_dir
        shared = Path("/tmp/comfyui_outputs")  # noqa: S108 - the specification's default
        return shared if self.writable_dirs is None else self.data_dir / "outputs"

    @property
    def bucket(self) -> Bucket | None:
        if self.bucket_endpoint_url is None:
            return None
        secret = self.bucket_secret_access_key
        return Bucket(
            endpoint_url=self.bucket_endpoint_url,
            access_key_id=self.bucket_access_key_id or "",
            secret_access_key=secret.get_secret_value() if secret else "",
            bucket_name=self.bucket_name,
        )

    @property
    def may_reach_this_machine(self) -> bool:
        return self.is_private_use if self.local_instances is None else self.local_instances


def load_settings(**overrides: object) -> Settings:
    """From the environment; `overrides` win. Raises: ConfigurationError, naming the variable."""
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        findings = [f"{_variable(str(e['loc'][0]))}: {e['msg']}" for e in error.errors() if e["loc"]]
        raise ConfigurationError("; ".join(findings)) from error
    _check_reach(settings)
    if settings.bucket_endpoint_url and not (
        settings.bucket_access_key_id and settings.bucket_secret_access_key
    ):
        raise ConfigurationError(
            f"{PREFIX}BUCKET_ENDPOINT_URL needs {PREFIX}BUCKET_ACCESS_KEY_ID and "
            f"{PREFIX}BUCKET_SECRET_ACCESS_KEY"
        )
    return settings


def _uid(user: str) -> int | None:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _origins(text: str) -> frozenset[Origin]:
    """Those that an entry means: one, or both usual ones of a host. None where it means none."""
    if "*" in text or text == "null":
        return frozenset()
    origin = parse_origin(text.removesuffix("/"))
    return frozenset({origin}) if origin else origins_of_host(text)


def _check_reach(settings: Settings) -> None:
    """Raises: ConfigurationError."""
    if settings.is_loopback:
        return
    if settings.api_token is None:
        raise ConfigurationError(
            f"Listening on {settings.host} would let everybody who reaches it start runs: "
            f"set {PREFIX}API_TOKEN, or listen on 127.0.0.1"
        )
    if len(settings.api_token.get_secret_value()) < SHORTEST_TOKEN:
        raise ConfigurationError(
            f"{PREFIX}API_TOKEN can be guessed by whoever reaches {settings.host}: "
            f"choose one of at least {SHORTEST_TOKEN} characters, as `openssl rand -hex 16` makes it"
        )


def _as_a_worker_has_them() -> dict[str, str]:
    found = {field: os.environ.get(name) for field, name in WORKER_NAMES.items()}
    return {field: value for field, value in found.items() if value}


def _variable(field: str) -> str:
    """The one that said it."""
    ours, theirs = PREFIX + field.upper(), WORKER_NAMES.get(field, "")
    return theirs if not os.environ.get(ours) and os.environ.get(theirs) else ours
