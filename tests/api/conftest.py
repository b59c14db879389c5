"""Fixtures: the API with runs in memory that are never executed."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.app import create_flask, create_jobs, path_policy, storage_settings
from comfyui_workflow.delivery.webhooks.sender import Outbox
from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.execution.preparations import SubmissionGate
from comfyui_workflow.instances.monitor import MonitorContext, MonitorOptions
from comfyui_workflow.instances.monitors import InstanceMonitors
from comfyui_workflow.instances.requests import InstanceRequests
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.provisioning.manifests import ManifestProvisioner
from comfyui_workflow.provisioning.offers import ModelOffers
from comfyui_workflow.provisioning.packs import PackOffers, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.custom_workflows.service import CustomWorkflows
from comfyui_workflow.services.distributed import DistributedService
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.model_downloads import ModelDownloads
from comfyui_workflow.services.models import ModelService
from comfyui_workflow.services.notifications import RunNotifier, RunNotifierTools
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.services.provisions import ProvisionService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import ValidationService
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.settings import Settings, load_settings
from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.storage.cache import DownloadCache
from comfyui_workflow.storage.registry import StorageRegistry
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.stores.files.api_keys import ApiKeys
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.files.provisions import FileProvisionStore
from comfyui_workflow.stores.files.usage import FileUsageStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import (
    MemoryDistributedSettingsStore,
    MemoryPendingStore,
    MemoryRunStore,
    MemoryWebhookStore,
)
from tests.checked_client import checked
from tests.instances.files import directory_in

NO_WEB = GuardedClient(may_reach_private=False)


@dataclass
class IdleExecutor:
    started: list[str] = field(default_factory=list)

    def start(self, run_id: str) -> None:
        self.started.append(run_id)

    def recheck(self, run_id: str) -> None:
        pass

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        return []

    def queue_status(self, run_id: str) -> None:
        return None

    def stop(self, timeout_s: float) -> bool:
        return True


@dataclass(kw_only=True)
class Api:
    app: Flask
    client: FlaskClient
    journal: RunJournal
    service: RunService
    executor: IdleExecutor
    jobs: JobService
    instances: InstanceServices
    live_view: LiveProgress
    outbox: Outbox
    settings: Settings
    tmp_path: Path

    def upload_path(self) -> Path:
        return self.settings.data_dir / "uploads"


def unreachable() -> Pool[InstanceKey, ComfyUISession]:
    """A session pool whose connections always fail."""

    def refuse(key: InstanceKey) -> ComfyUISession:
        raise ConnectionFailed(f"Failed to create SSH tunnel: {key.address.label} cannot be reached.")

    return Pool(refuse)


@contextmanager
def _no_way(instance_id: str) -> Iterator[Connection]:
    raise ConnectionFailed(f"{instance_id} cannot be reached")
    yield


def named_instances(settings: Settings, sessions: Pool[InstanceKey, ComfyUISession]) -> InstanceServices:
    """Instance services without a dispatcher."""
    monitors = InstanceMonitors(
        MonitorContext(
            sessions=sessions,
            ledger=UsageLedger(FileUsageStore(settings.data_dir / "usage.json")),
            options=MonitorOptions(),
            is_given_up=lambda _: None,
            tell=lambda: None,
        )
    )
    return InstanceServices(
        directory=directory_in(settings.instances_path),
        monitors=monitors,
        instance_requests=InstanceRequests(sessions, monitors.state),
        known_hosts=KnownHosts(settings.data_dir / "known_hosts"),
        ssh_config=settings.ssh_config,
        local_ports=LocalPorts(_no_way),
    )


def parts_of(
    settings: Settings,
    journal: RunJournal,
    store: RunStore,
    executor: Executor,
    *,
    files: PathPolicy | None = None,
    sessions: Pool[InstanceKey, ComfyUISession] | None = None,
) -> ApiServices:
    """The services of an API. Instances are reachable only through `sessions`."""
    sessions = sessions or unreachable()
    service = RunService(journal, store, executor)
    batches = FileBatchStore(settings.data_dir / "batches")
    batches.open()
    job_store = FileJobStore(settings.data_dir / "jobs")
    job_store.open()
    web = GuardedClient(may_reach_private=settings.may_reach_private_urls)
    storages = StorageRegistry(storage_settings(settings), web)
    cache = DownloadCache(settings.downloads_dir, storages, guarded=web, trusted=web)
    uploads = Uploads(settings.data_dir / "uploads", settings.uploads_kept_s, service.images_needed)
    urls = UrlInputs(storages=storages, cache=cache, uploads=uploads)
    outbox = Outbox(MemoryWebhookStore(), web)
    outbox.open()
    tools = RunNotifierTools(
        journal=journal, store=store, batches=batches, outbox=outbox, pending=MemoryPendingStore()
    )
    return ApiServices(
        notifier=RunNotifier(tools),
        service=service,
        distributed=DistributedService(service, store, settings.data_dir / "parts", uuid.uuid4),
        batches=BatchService(journal, store, service, batches),
        jobs=create_jobs(
            settings=settings,
            journal=journal,
            service=service,
            store=job_store,
            outbox=outbox,
            web=web,
            urls=urls,
            sessions=sessions,
        ),
        outbox=outbox,
        instances=named_instances(settings, sessions),
        models=ModelService(sessions, DownloadRules(hosts=("models.example",))),
        model_downloads=ModelDownloads(sessions, DownloadRules(hosts=("models.example",))),
        provisions=ProvisionService(
            sessions=sessions,
            provisioner=ManifestProvisioner(PackRules(), PackOffers(PackRules(), NO_WEB)),
            store=FileProvisionStore(settings.data_dir / "provisions"),
            orders=ApiKeys(settings.data_dir / "provision_orders"),
            alone=SubmissionGate().alone,
            key_of=lambda _: None,
        ),
        inspector=ValidationService(
            sessions, ModelOffers(DownloadRules(), NO_WEB), PackOffers(PackRules(), NO_WEB)
        ),
        live_view=LiveProgress(),
        files=files or PathPolicy(readable_dirs=None, writable_dirs=None),
        uploads=uploads,
        urls=urls,
        custom_workflows=CustomWorkflows(settings.workflow_dir),
        distributed_settings=MemoryDistributedSettingsStore(),
        settings=settings,
    )


@pytest.fixture
def make_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Api]]:
    opened: list[ApiServices] = []

    def make(*, sessions: Pool[InstanceKey, ComfyUISession] | None = None, **overrides: object) -> Api:
        fields = {"data_dir": tmp_path / "data", "state_file": tmp_path / "state.json", **overrides}
        settings = load_settings(**fields)
        store = MemoryRunStore()
        journal = RunJournal(store, url_secrets=ApiKeys(tmp_path / "url_secrets"))
        executor = IdleExecutor()
        parts = parts_of(settings, journal, store, executor, files=path_policy(settings), sessions=sessions)
        opened.append(parts)
        parts.jobs.start()
        app = create_flask(parts)
        return Api(
            app=app,
            client=checked(app),
            journal=journal,
            service=parts.service,
            executor=executor,
            jobs=parts.jobs,
            instances=parts.instances,
            live_view=parts.live_view,
            outbox=parts.outbox,
            settings=settings,
            tmp_path=tmp_path,
        )

    yield make
    for parts in opened:
        parts.jobs.stop()
        parts.instances.monitors.close(5)


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()
