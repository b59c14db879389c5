"""Settings of the server. Each is an environment variable: `COMFYUI_WORKFLOW_` and its name in capitals.

No other module reads the environment, except `server_address.py`: it reads four of the settings, which is
faster.
"""

import ipaddress
import os
import pwd
import re
from pathlib import Path
from typing import Annotated, Literal

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
from comfyui_workflow.runs.notification import SYSTEM_EVENTS
from comfyui_workflow.server_address import DEFAULT_HOST, DEFAULT_PORT, PREFIX

SHORTEST_TOKEN = 16
"""Minimum length of the API token of a server that listens beyond loopback. Wrong tokens are rate-limited per
address, but many addresses could guess together."""
WORKER_NAMES = {
    "bucket_endpoint_url": "BUCKET_ENDPOINT_URL",
    "bucket_access_key_id": "BUCKET_ACCESS_KEY_ID",
    "bucket_secret_access_key": "BUCKET_SECRET_ACCESS_KEY",
    "refresh_worker": "REFRESH_WORKER",
    "websocket_reconnect_delay_s": "WEBSOCKET_RECONNECT_DELAY_S",
    "log_level": "COMFY_LOG_LEVEL",
    "webhook_secret": "WEBHOOK_SECRET",
    "max_upload_mb": "MAX_BODY_SIZE_MB",
    "comfyui_api_max_queue_depth": "MAX_QUEUE_DEPTH",
    "comfyui_api_prepend_filenames": "PREPEND_FILENAMES",
    "workflow_dir": "WORKFLOW_DIR",
    "manifest": "MANIFEST",
    "manifest_json": "MANIFEST_JSON",
    "warmup_prompt_file": "WARMUP_PROMPT_FILE",
    "warmup_prompt_url": "WARMUP_PROMPT_URL",
    "system_webhook_url": "SYSTEM_WEBHOOK_URL",
    "system_webhook_events": "SYSTEM_WEBHOOK_EVENTS",
}
"""Names of the same settings in worker-comfyui and comfyui-api. Used if the variable with our prefix is not
set."""
STORAGE_NAMES = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "aws_endpoint_url": "AWS_ENDPOINT_URL",
    "aws_region": "AWS_REGION",
    "azure_storage_connection_string": "AZURE_STORAGE_CONNECTION_STRING",
    "azure_storage_account": "AZURE_STORAGE_ACCOUNT",
    "azure_storage_key": "AZURE_STORAGE_KEY",
    "azure_storage_sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "hf_token": "HF_TOKEN",
    "hf_endpoint": "HF_ENDPOINT",
    "http_auth_header_name": "HTTP_AUTH_HEADER_NAME",
    "http_auth_header_value": "HTTP_AUTH_HEADER_VALUE",
    "cache_dir": "CACHE_DIR",
    "lru_cache_size_gb": "LRU_CACHE_SIZE_GB",
}
"""Names of the same settings in comfyui-api, and in the libraries of the storages."""
FOREIGN_NAMES = {**WORKER_NAMES, **STORAGE_NAMES}
Words = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]


def _usual_data_dir() -> Path:
    """Raises: ConfigurationError for a user without a home directory, as in many containers."""
    try:
        return user_data_path("comfyui-workflow", appauthor=False)
    except RuntimeError as error:
        raise ConfigurationError(
            f"This user has no home directory: set {PREFIX}DATA_DIR, the directory for the records of runs, "
            "or HOME"
        ) from error


def _system_meta() -> dict[str, str]:
    """Returns the variables `SYSTEM_META_<name>` by name."""
    prefix = "SYSTEM_META_"
    return {name[len(prefix) :]: value for name, value in os.environ.items() if name.startswith(prefix)}


class Settings(BaseSettings):
    """The settings of the server. Immutable, created once at start. Lists are separated by commas."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = Field(
        DEFAULT_HOST, description="Address to listen on. Any address other than loopback needs `API_TOKEN`."
    )
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on. 0 selects a free port.")
    server_url: str | None = Field(
        None,
        description="URL of the server for the commands, such as `http://127.0.0.1:5000`. Unset: built from "
        "`HOST` and `PORT`.",
    )
    api_token: SecretStr | None = Field(
        None,
        description="If set, every route except `/health` needs `Authorization: Bearer <token>`, and "
        "browsers must log in. At least 16 characters if the server listens beyond loopback.",
    )
    data_dir: Path = Field(
        default_factory=_usual_data_dir,
        description="Directory for the records of runs, uploads and known host keys.",
    )
    instances_file: Path | None = Field(
        None,
        description="File with the named instances. Unset: `instances.json` in the data directory.",
    )
    state_file: Path = Field(
        Path("/tmp/comfyui_workflow_state.json"),  # noqa: S108 - path of the specification; replaced, never followed
        description="File with a copy of the state of the latest run, in the format of "
        "`/comfyui/workflow/state`.",
    )
    output_dir: Path | None = Field(
        None,
        description="Output directory for requests that name none. Unset: `/tmp/comfyui_outputs` if every "
        "directory may be written (see `WRITE_DIRS`), otherwise `outputs` in the data directory.",
    )
    read_dirs: Paths = Field(
        (),
        description="Directories from which the API may read workflows and images. Empty: all directories on "
        "loopback without a token, otherwise only the data directory.",
    )
    write_dirs: Paths = Field(
        (),
        description="Directories to which the API may write outputs. Empty: same rule as for `READ_DIRS`.",
    )
    input_kinds: Words = Field(
        ("image", "video", "audio", "3d", "latent"),
        description="Allowed kinds of input files, checked by their content: `image`, `video`, `audio`, "
        "`3d`, `latent`, `text`; or `any`. Files that were uploaded to the server are not "
        "checked.",
    )
    cors_hosts: Words = Field(
        ("http://10.0.78.66", "http://localhost", "http://127.0.0.1"),
        description="Origins whose pages may use the API from a browser, written exactly as a browser sends "
        "them: `http://localhost:3000`. A host alone stands for its default ports, 80 and 443. "
        "The pages of the server itself are always allowed, pages of a local port never.",
    )
    local_port_origins: Words = Field(
        (),
        description="Origins whose pages may use local ports, in addition to each port's own origin. Same "
        "format as `CORS_HOSTS`.",
    )
    allowed_hosts: Words = Field(
        (),
        description="Host names that requests may use for this server and for local ports, in addition to "
        "loopback names and `HOST`: `host.docker.internal` for programs in containers.",
    )
    local_users: Words = Field(
        (),
        description="Users of this machine, by name or number, who may use local ports and a server without "
        "a token, in addition to the server's own user and root. `any` allows all users. Only "
        "Linux reports the user of a connection; other systems allow all users.",
    )
    max_upload_mb: int = Field(
        512, ge=1, description="Maximum size of a request body, in MB. The name `MAX_BODY_SIZE_MB` works too."
    )
    ssh_key: Path | None = Field(None, description="Private key for instances whose ssh string names none.")
    ssh_key_passphrase: SecretStr | None = Field(None, description="Passphrase of encrypted private keys.")
    ssh_key_dirs: Paths = Field(
        (),
        description="Directories from which `-i` in an ssh string may name keys. Empty: all directories on "
        "loopback without a token, otherwise `~/.ssh` and the data directory.",
    )
    ssh_agent: bool | None = Field(
        None,
        description="Whether the keys of the SSH agent are tried after the key files. Unset: on loopback "
        "without a token.",
    )
    ssh_config: Path = Field(
        Path("~/.ssh/config"),
        description="SSH configuration file, for host names such as `gpu` and their options. `/dev/null` "
        "reads none.",
    )
    ssh_host_key: str | None = Field(
        None,
        description="Host key fingerprint (`SHA256:...`) that every instance must have. Turns off trust on "
        "first use.",
    )
    local_instances: bool | None = Field(
        None,
        description="Whether an ssh string may point to this machine. Unset: allowed on loopback without a "
        "token, otherwise not.",
    )
    search_ports: bool = Field(
        True,
        description="If ComfyUI is not on the named port of an instance and not on its usual ports: whether "
        "the other ports that programs of your user or root listen on there are tried.",
    )
    ssh_silence_limit_s: float = Field(
        15,
        ge=1,
        description="An SSH connection is opened again after so many seconds without an answer of the "
        "instance, like `ServerAliveInterval` times `ServerAliveCountMax` of OpenSSH. If only its files do "
        "not answer, for a third longer, they are transferred through ComfyUI.",
    )
    contact_patience_s: float = Field(
        120,
        ge=0,
        description="How long to try to reach an instance before the prompt is submitted, in seconds.",
    )
    lost_contact_patience_s: float = Field(
        86_400,
        ge=0,
        description="How long to try to reach an instance after the prompt was submitted, in seconds. It is "
        "longer because outputs may be waiting there.",
    )
    resubmissions: int = Field(
        1,
        ge=0,
        description="How many times a prompt is submitted again if ComfyUI was restarted while the prompt "
        "was running.",
    )
    stall_limit_s: float = Field(
        3600,
        ge=0,
        description="How long a prompt may run without progress before its ComfyUI counts as broken, in "
        "seconds. 0: no limit. The log of ComfyUI is read for the reason after 10 seconds, or half of a "
        "shorter limit.",
    )
    in_doubt_s: float = Field(
        10,
        ge=1,
        description="If the response to a submission was lost: how long the instance is searched for the "
        "prompt before it is sent again, in seconds.",
    )
    preview_method: Literal["auto", "latent2rgb", "taesd", "none", "default"] = Field(
        "auto",
        description="Preview pictures of sampling steps, for each prompt, in a ComfyUI since 0.8: `auto`, "
        "`latent2rgb`, `taesd`, `none`; `default` is what the instance was started with.",
    )
    late_copies_s: float = Field(
        300,
        ge=0,
        description="If a prompt had to be sent more than once: how long the queue of the instance is "
        "checked for late duplicates after the prompt has ended, in seconds. Duplicates are "
        "removed. 0 disables the check.",
    )
    largest_answer_mb: int = Field(
        64,
        ge=1,
        description="Maximum size of a response of an instance to `/object_info`, `/queue` or `/history`, in "
        "MB. An instance that sends more gets no further requests, and its runs fail with this "
        "reason.",
    )
    largest_message_mb: int = Field(
        32,
        ge=1,
        description="Maximum size of a websocket message of an instance, in MB. Same consequence as for "
        "`LARGEST_ANSWER_MB`.",
    )
    answer_timeout_s: float = Field(
        120,
        ge=1,
        description="Timeout for a complete response of an instance, in seconds. Same consequence as for "
        "`LARGEST_ANSWER_MB`. Files have a minimum rate instead: 256 bytes per second.",
    )
    prompts_per_instance: int = Field(
        2,
        ge=1,
        description="Maximum number of prompts of this server on one instance at a time. Other runs wait on "
        "the server, where they can be reordered, cancelled and moved to another instance.",
    )
    move_after_s: float = Field(
        120,
        ge=0,
        description="How long an instance may be unreachable before a prompt that was submitted there is "
        "moved to another instance that is ready, in seconds. Ten times as long if its outputs "
        "are waiting there. Only for runs on `any`.",
    )
    any_patience_s: float = Field(
        86_400, ge=0, description="How long runs on `any` wait while no instance is ready, in seconds."
    )
    idle_warning_s: float = Field(
        900,
        ge=0,
        description="How long a named instance may be idle before the server shows a warning, in seconds. At "
        "least until then it stays connected. 0 disables the warning.",
    )
    private_urls: bool = Field(
        False,
        description="Whether URLs of requests (webhooks, inputs, workflows, uploads, buckets) may lead to "
        "private, loopback, link-local and metadata addresses.",
    )
    webhook_private: bool = Field(
        False, description="Older name of `PRIVATE_URLS`: either of them allows it."
    )
    cache_dir: Path | None = Field(
        None,
        description="Directory for files that were downloaded from URLs. Unset: `downloads` in the data "
        "directory. The name `CACHE_DIR` works too.",
    )
    lru_cache_size_gb: float = Field(
        0,
        ge=0,
        description="Maximum size of that directory, in GB; the least recently used files are removed. 0: no "
        "limit. The name `LRU_CACHE_SIZE_GB` works too.",
    )
    storage_patience_s: float = Field(
        600,
        ge=0,
        description="How long a download of inputs from, or an upload of outputs to a storage is tried again "
        "without progress before the run fails, in seconds.",
    )
    aws_access_key_id: str | None = Field(
        None,
        description="ID of the access key for `s3://` URLs. The name `AWS_ACCESS_KEY_ID` works too; the next "
        "four settings also have such names. Unset: the profile or the role that boto3 finds.",
    )
    aws_secret_access_key: SecretStr | None = Field(None, description="Secret of that access key.")
    aws_session_token: SecretStr | None = Field(None, description="Session token of that access key.")
    aws_endpoint_url: str | None = Field(
        None, description="URL of another service with the S3 API: Cloudflare R2, MinIO."
    )
    aws_region: str | None = Field(
        None, description="Region. The names `AWS_REGION` and `AWS_DEFAULT_REGION` work too."
    )
    azure_storage_connection_string: SecretStr | None = Field(
        None,
        description="Account of Azure Blob Storage. The name `AZURE_STORAGE_CONNECTION_STRING` works too; "
        "the next three settings also have such names.",
    )
    azure_storage_account: str | None = Field(
        None, description="Name of the account, if there is no connection string."
    )
    azure_storage_key: SecretStr | None = Field(None, description="Key of that account.")
    azure_storage_sas_token: SecretStr | None = Field(
        None,
        description="SAS token for that account, if there is no key. With neither, the identity of the "
        "machine is used (needs `azure-identity`).",
    )
    hf_token: SecretStr | None = Field(
        None, description="Token of Hugging Face. The name `HF_TOKEN` works too."
    )
    hf_endpoint: str = Field(
        "https://huggingface.co",
        description="Another server with the API of Hugging Face. The name `HF_ENDPOINT` works too.",
    )
    http_auth_header_name: str | None = Field(
        None,
        description="Name of a header that is sent to web servers from which files are downloaded, or to "
        "which outputs are uploaded. The name `HTTP_AUTH_HEADER_NAME` works too.",
    )
    http_auth_header_value: SecretStr | None = Field(
        None, description="Value of that header. The name `HTTP_AUTH_HEADER_VALUE` works too."
    )
    http_auth_urls: str = Field(
        "**",
        description="URLs to which that header is sent, as a pattern: `https://files.example.com/**`. `*` "
        "stops at a slash, `**` does not, `?` is one character.",
    )
    webhook_timeout_s: float = Field(
        30, ge=1, description="Timeout of one attempt to deliver a webhook, in seconds."
    )
    webhook_patience_s: float = Field(
        86_400,
        ge=0,
        description="How long the delivery of a webhook is retried before it is given up, in seconds.",
    )
    webhook_kept_s: float = Field(
        604_800,
        ge=0,
        description="How long a webhook is kept after it was delivered or given up, in seconds. Until then "
        "it can be listed and sent again.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Secret of signed webhooks: base64, with or without `whsec_` before it. Unset: they are "
        "not signed. The name `WEBHOOK_SECRET` works too.",
    )
    provision_hosts: Words = Field(
        ("huggingface.co", "hf.co", "civitai.com", "github.com"),
        description="Hosts from which `provision` may download models, with their subdomains and only with "
        "https. An origin such as `http://10.0.0.5:8000` allows exactly that one, without https and with a "
        "private address. `any` allows every host with https.",
    )
    provision_tokens: SecretStr | None = Field(
        None,
        description="Tokens for hosts of models, such as `huggingface.co=hf_...,civitai.com=...`. A token is "
        "sent to the instance, which sends it to its host.",
    )
    provision_packs: Words = Field(
        ("registry",),
        description="Node packs that `provision` may install: ids in ComfyUI's registry, `owner/repository` "
        "at GitHub, `registry` for all packs of the registry, `any` for all. `none` allows none. A node pack "
        "is a program that runs on the instance.",
    )
    provision_registry: str = Field(
        "https://api.comfy.org", description="ComfyUI's registry, which tells the repository of a node pack."
    )
    manifest: Path | None = Field(
        None,
        description="File with a manifest, YAML or JSON, that is applied to each instance that has just come "
        "up, before it takes runs. Unset: none. The name `MANIFEST` works too.",
    )
    manifest_json: SecretStr | None = Field(
        None,
        description="The manifest itself, as JSON. It has precedence over `MANIFEST`. The name "
        "`MANIFEST_JSON` works too.",
    )
    warmup_prompt_file: Path | None = Field(
        None,
        description="File with a workflow that is run once on each ComfyUI that has just started. The "
        "instance takes runs only afterwards. The name `WARMUP_PROMPT_FILE` works too.",
    )
    warmup_prompt_url: SecretStr | None = Field(
        None,
        description="URL of this workflow, if there is no `WARMUP_PROMPT_FILE`; its address may be private. "
        "The name `WARMUP_PROMPT_URL` works too.",
    )
    system_webhook_url: str | None = Field(
        None,
        description="URL that gets the messages of ComfyUI's websocket during runs, as webhooks; its address "
        "may be private. The name `SYSTEM_WEBHOOK_URL` works too.",
    )
    system_webhook_events: Words = Field(
        (),
        description="Messages that are sent to that URL, such as `progress,execution_error`, or `all`. "
        "Empty: none. The name `SYSTEM_WEBHOOK_EVENTS` works too.",
    )
    system_meta: dict[str, str] = Field(
        default_factory=_system_meta,
        description="Metadata of these webhooks, a JSON object. Unset: the variables `SYSTEM_META_<name>`.",
    )
    workflow_dir: Path | None = Field(
        None,
        description="Directory of custom workflows: files that become routes below `/workflow`. Python and "
        "JavaScript files in it are run by the server. Unset: there are none. The name `WORKFLOW_DIR` works "
        "too.",
    )
    uploads_kept_s: float = Field(
        2_592_000,
        ge=0,
        description="How long an uploaded file is kept after the last run that named it, in seconds.",
    )
    default_endpoint: str = Field(
        "any",
        description="Endpoint of jobs whose path contains none (`/run` instead of `/v2/<endpoint_id>/run`): "
        "an instance, a tag, `any`, or an ssh string.",
    )
    comfyui_api_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which the API of comfyui-api is served at the root, as its clients expect it at "
        "3000. 0 selects a free port. Unset: only below `/comfyui-api` at `PORT`.",
    )
    comfyui_api_target: str = Field(
        "any",
        description="Where prompts of comfyui-api run: an instance, `any`, `any:<tag>`, or an ssh string. "
        "The header `Comfyui-Target` of a request has precedence.",
    )
    comfyui_api_max_queue_depth: int = Field(
        0,
        ge=0,
        description="Number of unfinished prompts of comfyui-api from which `/ready` answers 503. 0: no "
        "limit. The name `MAX_QUEUE_DEPTH` works too.",
    )
    comfyui_api_prepend_filenames: bool = Field(
        True,
        description="Whether the id of a prompt of comfyui-api is put before each `filename_prefix`. False: "
        "it replaces the prefix. The name `PREPEND_FILENAMES` works too.",
    )
    distributed_master: str | None = Field(
        None,
        description="The instance that is the master of ComfyUI-Distributed's API at the port of the server. "
        "Unset: the first instance. At a local port, the master is the instance of that port.",
    )
    rate_limits: bool = Field(
        False, description="Whether job endpoints have the same rate limits as endpoints of RunPod."
    )
    bucket_endpoint_url: str | None = Field(
        None,
        description="URL of an S3 bucket. If set, outputs of jobs are uploaded there, and responses contain "
        "their URLs. The name `BUCKET_ENDPOINT_URL` works too; the next two settings also have "
        "such names.",
    )
    bucket_access_key_id: str | None = Field(None, description="ID of the access key for the bucket.")
    bucket_secret_access_key: SecretStr | None = Field(None, description="Secret of the access key.")
    bucket_name: str | None = Field(
        None,
        description="Name of the bucket. Unset: taken from the path or else the host of the endpoint URL; "
        "otherwise month and year, such as `03-26`.",
    )
    refresh_worker: bool = Field(
        False,
        description="Whether the memory of the instance is freed after each job. The name `REFRESH_WORKER` "
        "works too.",
    )
    websocket_reconnect_delay_s: float = Field(
        5,
        ge=0.5,
        description="Maximum delay before a broken websocket is connected again, in seconds. The name "
        "`WEBSOCKET_RECONNECT_DELAY_S` works too.",
    )
    connection_idle_s: float = Field(
        300, ge=0, description="How long an unused connection to an instance stays open, in seconds."
    )
    log_level: str = Field(
        "INFO",
        description="`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`. "
        "The name `COMFY_LOG_LEVEL` works too.",
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
        """Returns the sources in order of precedence, highest first."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _foreign_variables())

    @field_validator(
        "local_users",
        "input_kinds",
        "system_webhook_events",
        "cors_hosts",
        "local_port_origins",
        "allowed_hosts",
        "provision_hosts",
        "provision_packs",
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

    @field_validator(
        "data_dir",
        "instances_file",
        "state_file",
        "output_dir",
        "cache_dir",
        "workflow_dir",
        "manifest",
        "warmup_prompt_file",
        "read_dirs",
        "write_dirs",
        "ssh_key",
        "ssh_key_dirs",
    )
    @classmethod
    def _in_home(cls, value: object) -> object:
        """Expands ~: no shell does it in a crontab, a unit of systemd or the environment of a container. The
        reader of `ssh_config` expands it itself: by default, it is no error that there is no home."""
        if isinstance(value, tuple):
            return tuple(map(cls._in_home, value))
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError("there is no such home directory") from error

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
                raise ValueError(f"{each!r} is not one of {', '.join(known)}")
        return value

    @field_validator("system_webhook_events")
    @classmethod
    def _are_events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each not in (*SYSTEM_EVENTS, "all"):
                raise ValueError(f"{each!r} is not one of all, {', '.join(SYSTEM_EVENTS)}")
        return SYSTEM_EVENTS if "all" in value else value

    @field_validator("system_webhook_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @field_validator("cors_hosts", "local_port_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _origins(each):
                raise ValueError(f"{each!r} is not an origin such as http://localhost:3000")
        return value

    @field_validator("provision_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not re.fullmatch(r"(https?://)?[A-Za-z0-9.-]+(?(1)(:[0-9]{1,5})?)", each):
                raise ValueError(f"{each!r} is neither a host such as huggingface.co nor an origin")
        return value

    @field_validator("provision_tokens")
    @classmethod
    def _have_hosts(cls, value: SecretStr | None) -> SecretStr | None:
        for each in _words(value):
            if not re.fullmatch(r"[A-Za-z0-9.-]+=[!-~]+", each):
                raise ValueError("must be a list of host=token")
        return value

    @property
    def tokens_by_host(self) -> dict[str, str]:
        """Tokens for hosts of models, by host name."""
        pairs = (each.partition("=") for each in _words(self.provision_tokens))
        return {host.lower(): token for host, _, token in pairs}

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @property
    def other_users(self) -> frozenset[int] | None:
        """User ids of the additional local users. None: all users are allowed."""
        found = (_uid(each) for each in self.local_users)
        return None if "any" in self.local_users else frozenset(uid for uid in found if uid is not None)

    @property
    def allowed_kinds(self) -> frozenset[InputKind] | None:
        """Kinds of input files. None: all kinds are allowed."""
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
        """True if the server listens on loopback without a token.

        Then only users of this machine can reach it, and directories are not restricted: the user has the
        same rights without the server."""
        return self.is_loopback and self.api_token is None

    @property
    def instances_path(self) -> Path:
        return (self.instances_file or self.data_dir / "instances.json").expanduser()

    @property
    def readable_dirs(self) -> tuple[Path, ...] | None:
        """Directories that may be read. None: all."""
        return self.read_dirs or (None if self.is_private_use else (self.data_dir,))

    @property
    def writable_dirs(self) -> tuple[Path, ...] | None:
        """Directories that may be written, including `output_dir`. None: all."""
        allowed = self.write_dirs or (None if self.is_private_use else (self.data_dir,))
        return allowed if allowed is None or self.output_dir is None else (*allowed, self.output_dir)

    @property
    def key_dirs(self) -> tuple[Path, ...] | None:
        if self.ssh_key_dirs or self.is_private_use:
            return self.ssh_key_dirs or None
        try:
            return Path("~/.ssh").expanduser(), self.data_dir
        except RuntimeError:  # the user has no home directory
            return (self.data_dir,)

    @property
    def uses_ssh_agent(self) -> bool:
        return self.is_private_use if self.ssh_agent is None else self.ssh_agent

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
    def may_reach_private_urls(self) -> bool:
        return self.private_urls or self.webhook_private

    @property
    def downloads_dir(self) -> Path:
        return self.cache_dir or self.data_dir / "downloads"

    @property
    def may_reach_this_machine(self) -> bool:
        return self.is_private_use if self.local_instances is None else self.local_instances


def secret_of(given: SecretStr | None) -> str | None:
    return given.get_secret_value() if given else None


def load_settings(**overrides: object) -> Settings:
    """Loads the settings from the environment. `overrides` have precedence.

    Raises: ConfigurationError, with the name of the variable."""
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
    """Returns the origins of one entry: one origin, or both default origins of a host. Empty if invalid."""
    if "*" in text or text == "null":
        return frozenset()
    origin = parse_origin(text.removesuffix("/"))
    return frozenset({origin}) if origin else origins_of_host(text)


def _check_reach(settings: Settings) -> None:
    """Checks that a server beyond loopback has a long token. Raises: ConfigurationError."""
    if settings.is_loopback:
        return
    if settings.api_token is None:
        raise ConfigurationError(
            f"Listening on {settings.host} would let everybody who reaches it start runs: "
            f"set {PREFIX}API_TOKEN, or listen on 127.0.0.1"
        )
    if len(settings.api_token.get_secret_value()) < SHORTEST_TOKEN:
        raise ConfigurationError(
            f"{PREFIX}API_TOKEN is too short for a server that listens on {settings.host}: "
            f"choose one with at least {SHORTEST_TOKEN} characters, for example from `openssl rand -hex 16`"
        )


def _foreign_variables() -> dict[str, str]:
    """Returns the settings that are set by a name of another program."""
    found = {field: os.environ.get(name) for field, name in FOREIGN_NAMES.items()}
    found["aws_region"] = found["aws_region"] or os.environ.get("AWS_DEFAULT_REGION")
    return {field: value for field, value in found.items() if value}


def _words(secret: SecretStr | None) -> list[str]:
    text = "" if secret is None else secret.get_secret_value()
    return [part.strip() for part in text.split(",") if part.strip()]


def _variable(field: str) -> str:
    """Returns the name of the variable that a field was read from."""
    own_name, worker_name = PREFIX + field.upper(), FOREIGN_NAMES.get(field, "")
    return worker_name if not os.environ.get(own_name) and os.environ.get(worker_name) else own_name
