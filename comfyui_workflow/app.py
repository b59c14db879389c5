"""Composition root: creates all components of the server and connects them.

How it works. `create_server` builds the components without opening a file or starting a thread; importing
this module has no side effects either. `ordered_components` declares the order in which `Lifecycle` opens,
recovers and starts them. `python app.py` serves; `create_app(settings)` returns a started Flask app for
another WSGI server.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

from flask import Flask

from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.api import auth, health
from comfyui_workflow.api.comfyui_api import requests as prompt_requests
from comfyui_workflow.api.comfyui_api import routes as prompt_routes
from comfyui_workflow.api.comfyui_api.presenter import ComfyUIApiPresenter
from comfyui_workflow.api.comfyui_distributed import routes as distributed_routes
from comfyui_workflow.api.comfyui_distributed.local_ports import routes_at_local_ports
from comfyui_workflow.api.mount import ApiServices, api_prefixes, find_body_limit, mount
from comfyui_workflow.api.native import batches, custom_workflows, instances, runs, webhooks
from comfyui_workflow.api.rules import MatchingRule
from comfyui_workflow.api.runpod import presenter, routes
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.limits import MB, InstanceLimits, KnownBreaches, LimitBreaches
from comfyui_workflow.comfyui.messages import Message
from comfyui_workflow.comfyui.queue import PromptMark
from comfyui_workflow.delivery.output_uploads import OutputUploader
from comfyui_workflow.delivery.webhooks.sender import Outbox, OutboxOptions
from comfyui_workflow.delivery.webhooks.standard import signing_key
from comfyui_workflow.delivery.webhooks.system_events import SystemEventOptions, SystemEvents
from comfyui_workflow.errors import ConfigurationError, StoreError, WorkflowError
from comfyui_workflow.execution.input_prefetch import InputPrefetcher
from comfyui_workflow.execution.late_copies import LateCopyWatcher
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.execution.preparations import Preparations, Step, SubmissionGate
from comfyui_workflow.execution.prompt_marks import PromptMarkCheck
from comfyui_workflow.execution.runner import Runner, RunnerOptions
from comfyui_workflow.execution.storage_steps import StorageSteps
from comfyui_workflow.execution.submit import SubmissionContext
from comfyui_workflow.execution.warm_up import WarmUp, read_warm_up
from comfyui_workflow.instances.entries import complete
from comfyui_workflow.instances.machines import NamedMachines
from comfyui_workflow.instances.model import key_of_instance
from comfyui_workflow.instances.monitor import MonitorContext, MonitorOptions
from comfyui_workflow.instances.monitors import InstanceMonitors
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.instances.requests import InstanceRequests
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.lifecycle import Component, Lifecycle, Notifier
from comfyui_workflow.provisioning.manifests import ManifestProvisioner
from comfyui_workflow.provisioning.offers import ModelOffers
from comfyui_workflow.provisioning.packs import PackOffers, PackRules
from comfyui_workflow.provisioning.provisioners import provisioners
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.proxy.model import PortPolicy, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.proxy.used_ports import UsedPorts
from comfyui_workflow.runs.model import needs_url_secrets
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.scheduling.dispatcher import Dispatcher, DispatchOptions
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.scheduling.orphaned_prompts import is_given_up
from comfyui_workflow.server import http
from comfyui_workflow.server.body_limits import BodyLimits
from comfyui_workflow.server_address import PREFIX
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.custom_workflows.service import CustomWorkflows
from comfyui_workflow.services.distributed import DistributedService
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.jobs.presenter import Presenters
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.jobs.worker_refresh import refresher
from comfyui_workflow.services.model_downloads import ModelDownloads
from comfyui_workflow.services.models import ModelService
from comfyui_workflow.services.notifications import RunNotifier, RunNotifierTools
from comfyui_workflow.services.parts import PartService, PartTools
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.services.provisions import ManifestStep, ProvisionService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import ValidationService
from comfyui_workflow.sessions.leases import lease_comfyui
from comfyui_workflow.sessions.port_search import WantedPort
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey, client_id, server_id
from comfyui_workflow.settings import Settings, load_settings, secret_of
from comfyui_workflow.ssh.client_config import resolve
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.storage.azure import AzureAccount
from comfyui_workflow.storage.base import S3Account
from comfyui_workflow.storage.cache import GB, DownloadCache
from comfyui_workflow.storage.http import HttpHeader
from comfyui_workflow.storage.huggingface import HuggingFaceAccount
from comfyui_workflow.storage.registry import StorageRegistry, StorageSettings
from comfyui_workflow.stores.base import BatchStore, JobStore
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.api_keys import ApiKeys
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.files.distributed_settings import FileDistributedSettingsStore
from comfyui_workflow.stores.files.instances import FileInstanceStore
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.files.logins import FileLoginStore
from comfyui_workflow.stores.files.ownership import OwnershipMonitor
from comfyui_workflow.stores.files.pending import FilePendingStore
from comfyui_workflow.stores.files.private_directories import restrict_to_owner
from comfyui_workflow.stores.files.provisions import FileProvisionStore
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.files.usage import FileUsageStore
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.web import api_docs, pages
from comfyui_workflow.workflows.model import GraphRequest

WARM_UP_TIMEOUT_S = 120.0
LARGEST_WARM_UP_BYTES = 16 * 1024 * 1024
"""Maximum size of a file that the settings name: a manifest, a workflow."""
KNOWN_PROMPT_NAMES = 1000
APIS = (
    runs.API,
    batches.API,
    instances.API,
    webhooks.API,
    custom_workflows.API,
    routes.API,
    prompt_routes.API,
    distributed_routes.API,
)
SECTIONS = (
    *(api.section for api in APIS if api.section is not None),
    health.SECTION,
    pages.SECTION,
    api_docs.SECTION,
    api_docs.section(prompt_routes.PREFIX),
)
"""Sections of the OpenAPI document."""
RUNPOD = presenter.RunPodPresenter()
PRESENTERS = Presenters(
    by_name={presenter.NAME: RUNPOD, prompt_requests.NAME: ComfyUIApiPresenter()}, unnamed=RUNPOD
)
POLITE_STOP_S = 2.0
"""Time for runs to stop by themselves. After that, their sessions are closed, which ends all waiting."""
WATCH_STOP_S = 1.0
OUTBOX_STOP_S = 0.5
"""Time for webhooks that are being sent. One that takes longer is sent again after the next start."""
WARNING_SEEN_S = 60.0
"""An instance is monitored for this time after its idle warning."""
SECRETS_KEPT_S = 7 * 86_400.0
"""The credentials of a request are removed at the first start after this time, whatever became of its run."""
STOP_TIMEOUT_S = 5.0
"""Time for the threads of runs. Short enough that the server stops within ten seconds after SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """The Flask app, and the lifecycle of all components behind it."""

    app: Flask
    base: "Foundation"
    parts: ApiServices
    resumption: "Resumption"
    lifecycle: Lifecycle

    def open(self) -> None:
        """Locks the data directory and reads all records, without continuing any run.

        Raises: ConfigurationError; DataTaken; then nothing is left open."""
        self.lifecycle.open()

    def start(self) -> int:
        """Opens the stores and resumes all unfinished runs. Returns the number of resumed runs.

        Raises: ConfigurationError; DataTaken; then nothing is left open."""
        self.lifecycle.start()
        return self.resumption.count

    @property
    def refusals(self) -> BodyLimits:
        return refusals(self.parts.settings)

    def end_waits(self) -> None:
        """Ends all waiting requests. Called before the server waits for its request threads."""
        self.parts.jobs.end_waits()

    @property
    def lost(self) -> str | None:
        """The error message if another server has taken over the data directory, otherwise None."""
        return self.base.store.ownership.lost

    def on_data_taken(self, notify: Callable[[], None]) -> None:
        """Calls `notify`, in any thread, when another server has taken over the data directory."""
        self.base.store.ownership.listen(lambda _: notify())

    def stop(self) -> None:
        """Stops all components. Thread-safe; a second call does nothing."""
        self.lifecycle.stop()


class Resumption:
    """Resumes the unfinished runs of earlier processes, except those that a job holds back."""

    def __init__(self, runs: RunService, jobs: JobService) -> None:
        self.count = 0
        self._runs = runs
        self._jobs = jobs

    def start(self) -> None:
        self.count = self._runs.resume(held_back=self._jobs.held_back())


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """Components that all others use: the records, and the sessions with instances."""

    settings: Settings
    damage: DamageReport
    store: FileRunStore
    api_keys: ApiKeys
    journal: RunJournal
    judge: PromptMarkCheck
    logins: FileLoginStore
    machines: NamedMachines
    system_events: SystemEvents
    sessions: Pool[InstanceKey, ComfyUISession]
    web: GuardedClient
    """The client for all URLs of requests."""
    url_secrets: ApiKeys
    storages: StorageRegistry
    downloads: DownloadCache

    def file(self, name: str) -> Path:
        return self.settings.data_dir / name


@dataclass(frozen=True, kw_only=True)
class Components:
    """The components with a lifecycle: those that the routes use (`parts`), and others."""

    base: Foundation
    parts: ApiServices
    batches: BatchStore
    jobs: JobStore
    executor: Executor
    copies: LateCopyWatcher
    resumption: Resumption
    preparations: Preparations
    run_parts: PartService
    checks: tuple[Callable[[], None], ...] = ()
    """Checks of files that the settings name. Each raises ConfigurationError."""


def create_server(settings: Settings) -> Server:
    base, fleet_changes, live_view = create_base(settings), Notifier(), LiveProgress()
    gate = SubmissionGate()
    provisions = create_provisions(base, gate)
    steps_of_settings = preparation_steps(base, provisions)
    preparations = Preparations(base.sessions, steps_of_settings, gate)
    instances = create_instances(base, fleet_changes, preparations)
    copies = LateCopyWatcher(base.sessions, base.journal, settings.late_copies_s)
    steps = create_storage_steps(base)
    dispatcher = create_dispatcher(base, instances, copies, live_view, steps, preparations=preparations)
    executor = InputPrefetcher(dispatcher, base.journal, steps, live_view)
    fleet_changes.listen(dispatcher.wake)
    base.store.ownership.listen(lambda _: start_in_thread("leaving", partial(executor.stop, 0)))
    service = RunService(base.journal, base.store, executor)
    distributed = DistributedService(
        service, base.store, base.file("parts"), lambda: server_id(base.settings.data_dir)
    )
    tools = PartTools(
        journal=base.journal,
        store=base.store,
        service=service,
        executor=executor,
        directory=instances.directory,
        gathering=distributed,
    )
    run_parts = PartService(tools)
    batches, jobs = FileBatchStore(base.file("batches")), FileJobStore(base.file("jobs"))
    parts = create_parts(
        base,
        service=service,
        distributed=distributed,
        instances=instances,
        live_view=live_view,
        batches=batches,
        jobs=jobs,
        provisions=provisions,
    )
    app = create_flask(parts)
    instances.local_ports.serve(routes_at_local_ports(app, settings.max_upload_mb * MB))
    resumption = Resumption(parts.service, parts.jobs)
    made = Components(
        base=base,
        parts=parts,
        batches=batches,
        jobs=jobs,
        executor=executor,
        copies=copies,
        resumption=resumption,
        preparations=preparations,
        checks=tuple(each.check for each in steps_of_settings if isinstance(each, ManifestStep)),
        run_parts=run_parts,
    )
    return Server(
        app=app,
        base=base,
        parts=parts,
        resumption=resumption,
        lifecycle=Lifecycle(ordered_components(made)),
    )


def create_base(settings: Settings) -> Foundation:
    damage = DamageReport()
    store = FileRunStore(settings.data_dir, settings.state_file, damage=damage)
    api_keys = ApiKeys(settings.data_dir / "secrets")
    url_secrets = ApiKeys(settings.data_dir / "url_secrets", "The credentials of the run")
    journal = RunJournal(store, api_keys=api_keys, url_secrets=url_secrets)
    web = GuardedClient(may_reach_private=settings.may_reach_private_urls)
    storages = StorageRegistry(storage_settings(settings), web)
    breaches, judge = KnownBreaches(), PromptMarkCheck(journal, store.ownership)
    logins = FileLoginStore(settings.data_dir / "logins")
    machines = NamedMachines(logins, lambda key: resolved_key(key, settings))
    events = SystemEvents(system_event_options(settings))
    return Foundation(
        settings=settings,
        damage=damage,
        store=store,
        api_keys=api_keys,
        journal=journal,
        judge=judge,
        logins=logins,
        machines=machines,
        system_events=events,
        sessions=Pool(
            lambda key: open_session(
                key,
                settings,
                breaches.of(key),
                judge.judge,
                machines,
                on_message=events.listener(key.address.label),
            ),
            canonical=lambda key: resolved_key(key, settings),
            idle_s=settings.connection_idle_s,
        ),
        web=web,
        url_secrets=url_secrets,
        storages=storages,
        downloads=DownloadCache(
            settings.downloads_dir,
            storages,
            guarded=web,
            trusted=GuardedClient(may_reach_private=True),
            most_bytes=int(settings.lru_cache_size_gb * GB),
            tell=events.report,
        ),
    )


def create_storage_steps(base: Foundation) -> StorageSteps:
    uploader = OutputUploader(base.storages, base.system_events.report)
    base.journal.listen(uploader.forget)
    return StorageSteps(getter=base.downloads, uploader=uploader, secrets=base.journal.url_secrets)


def create_dispatcher(
    base: Foundation,
    instances: InstanceServices,
    copies: LateCopyWatcher,
    live_view: LiveProgress,
    storage: StorageSteps,
    *,
    preparations: Preparations,
) -> Dispatcher:
    settings, ownership = base.settings, base.store.ownership
    sender = SubmissionContext(
        server=lambda: server_id(settings.data_dir),
        process=ownership.token,
        check_data=ownership.check,
        is_resumed=base.journal.is_resumed,
        has_seen_other=base.judge.has_seen_other,
        expect_copies=copies.expect,
        in_doubt_s=settings.in_doubt_s,
        preview_method=settings.preview_method,
    )
    runner = Runner(
        base.journal,
        base.sessions,
        runner_options(settings),
        live_view,
        sender,
        storage=storage,
        provisioners=provisioners(pack_rules(settings), base.web, base.system_events.report),
        preparations=preparations,
    )
    return Dispatcher(
        journal=base.journal,
        directory=instances.directory,
        monitors=instances.monitors,
        execute=runner.execute,
        options=dispatch_options(settings),
    )


def create_parts(
    base: Foundation,
    *,
    service: RunService,
    distributed: DistributedService,
    instances: InstanceServices,
    live_view: LiveProgress,
    batches: BatchStore,
    jobs: JobStore,
    provisions: ProvisionService,
) -> ApiServices:
    settings, damage = base.settings, base.damage
    outbox = Outbox(FileWebhookStore(base.file("webhooks"), damage), base.web, outbox_options(settings))
    uploads = Uploads(base.file("uploads"), settings.uploads_kept_s, service.images_needed)
    urls = UrlInputs(storages=base.storages, cache=base.downloads, uploads=uploads)
    notifier = RunNotifier(
        RunNotifierTools(
            journal=base.journal,
            store=base.store,
            batches=batches,
            outbox=outbox,
            pending=FilePendingStore(base.file("notifications")),
        )
    )
    return ApiServices(
        service=service,
        distributed=distributed,
        batches=BatchService(base.journal, base.store, service, batches, damage),
        jobs=create_jobs(
            settings=settings,
            journal=base.journal,
            service=service,
            store=jobs,
            outbox=outbox,
            web=base.web,
            urls=urls,
            sessions=base.sessions,
        ),
        outbox=outbox,
        notifier=notifier,
        instances=instances,
        models=ModelService(base.sessions, download_rules(settings)),
        model_downloads=ModelDownloads(base.sessions, download_rules(settings), base.system_events.report),
        provisions=provisions,
        inspector=ValidationService(
            base.sessions,
            ModelOffers(download_rules(settings), base.web),
            PackOffers(pack_rules(settings), base.web),
        ),
        live_view=live_view,
        files=path_policy(settings),
        uploads=uploads,
        urls=urls,
        custom_workflows=CustomWorkflows(settings.workflow_dir),
        settings=settings,
        distributed_settings=FileDistributedSettingsStore(base.file("distributed.json"), damage),
        damage=damage,
    )


def ordered_components(made: Components) -> tuple[Component, ...]:
    """Returns all components in the order in which they are opened, recovered and started.

    They are stopped in reverse order. A component comes after all components that it uses while it runs."""
    base, parts, instances = made.base, made.parts, made.parts.instances
    store, keys, watchman = base.store, base.api_keys, OwnershipMonitor(base.store.ownership)
    return (
        Component(name="data directory", open=partial(restrict_to_owner, base.settings.data_dir)),
        Component(
            name="host keys", open=partial(check_server_id_and_host_keys, instances.known_hosts, parts.damage)
        ),
        Component(name="instances", open=instances.directory.load),
        *(Component(name="manifest of the settings", open=check) for check in made.checks),
        Component(
            name="API keys",
            open=partial(keys.move_keys_from_records, base.file("runs")),
            recover=partial(keep_wanted_keys, keys, store),
        ),
        Component(name="credentials", recover=partial(keep_wanted_secrets, base.url_secrets, store)),
        Component(name="runs on disk", open=store.open, stop=store.close),
        # recovery writes records: from here on, no other server may use the data directory
        Component(name="ownership", open=watchman.start, stop=watchman.stop),
        Component(name="batches on disk", open=made.batches.open),
        Component(name="jobs on disk", open=made.jobs.open),
        Component(name="webhooks on disk", open=parts.outbox.open),
        Component(name="distributed settings on disk", open=parts.distributed_settings.open),
        Component(name="duration estimates", open=parts.service.learn),
        # after `sessions`: a run that waits for an instance ends only when its session is closed
        Component(name="threads of runs", stop=partial(made.executor.stop, STOP_TIMEOUT_S)),
        Component(
            name="monitors",
            start=partial(load_monitors, instances),
            stop=partial(instances.monitors.close, WATCH_STOP_S),
        ),
        Component(name="sessions", stop=base.sessions.close),
        Component(name="model downloads", stop=parts.model_downloads.stop),
        Component(name="provisions", start=parts.provisions.resume, stop=parts.provisions.stop),
        Component(name="preparations", stop=made.preparations.stop),
        Component(name="late copies", stop=made.copies.stop),
        Component(name="runs", start=made.resumption.start, stop=partial(made.executor.stop, POLITE_STOP_S)),
        Component(name="webhooks", start=parts.outbox.start, stop=partial(parts.outbox.stop, OUTBOX_STOP_S)),
        Component(
            name="batches",
            recover=parts.batches.resume,
            start=partial(start_batches, parts.batches),
        ),
        # after `batches`: those that were not accepted, or were cancelled, end with all their parts
        Component(name="files of parts", recover=parts.distributed.clean_up),
        Component(
            name="parts of runs",
            recover=made.run_parts.recover,
            start=made.run_parts.start,
            stop=made.run_parts.stop,
        ),
        Component(
            name="system events",
            start=partial(base.system_events.start, parts.outbox, prompt_names(parts)),
            stop=partial(base.system_events.stop, OUTBOX_STOP_S),
        ),
        Component(
            name="notifications",
            start=partial(start_in_thread, "notifications", parts.notifier.resume),
            stop=parts.notifier.stop,
        ),
        Component(
            name="jobs",
            recover=partial(parts.jobs.rebuild_damaged, parts.damage),
            start=parts.jobs.start,
            stop=parts.jobs.stop,
        ),
        Component(name="local ports", start=instances.local_ports.start, stop=instances.local_ports.stop),
        *prompt_port(parts),
    )


def keep_wanted_keys(keys: ApiKeys, store: FileRunStore) -> None:
    """Removes the API keys that no run needs: a key is needed until the prompt of its run was accepted."""
    keys.keep_only({run.run_id for run in store.unfinished() if not run.is_accepted})


def keep_wanted_secrets(secrets: ApiKeys, store: FileRunStore) -> None:
    """Removes the credentials that no run needs. A failed run needs them for a retry, for some days."""
    secrets.keep_only(
        {
            run.run_id
            for run_id in secrets.run_ids(within_s=SECRETS_KEPT_S)
            if (run := store.get(run_id)) is not None and needs_url_secrets(run)
        }
    )


def load_monitors(instances: InstanceServices) -> None:
    instances.monitors.load({each.id: each for each in instances.directory.all()})


def start_batches(batches: BatchService) -> None:
    """Starts the work of batches. Called after their runs are resumed."""
    batches.stop_failed()
    start_in_thread("warm-up", batches.warm_up)


def start_in_thread(name: str, work: Callable[[], object]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


def create_provisions(base: Foundation, gate: SubmissionGate) -> ProvisionService:
    rules = pack_rules(base.settings)
    return ProvisionService(
        sessions=base.sessions,
        provisioner=ManifestProvisioner(rules, PackOffers(rules, base.web)),
        store=FileProvisionStore(base.file("provisions"), base.damage),
        orders=ApiKeys(base.file("provision_orders"), "The manifest of the instance"),
        alone=gate.alone,
        key_of=base.machines.key_of,
    )


def preparation_steps(base: Foundation, provisions: ProvisionService) -> tuple[Step, ...]:
    """Returns what the settings say about each ComfyUI that has just started."""
    settings, steps = base.settings, list[Step]()
    if settings.manifest is not None or settings.manifest_json is not None:
        read = partial(manifest_of, settings)
        steps.append(ManifestStep(provisions=provisions, machine_of=base.machines.id_of, read=read))
    if settings.warmup_prompt_file is not None or settings.warmup_prompt_url is not None:
        steps.append(WarmUp(load=partial(warm_up_of, settings)))
    return tuple(steps)


def manifest_of(settings: Settings) -> str:
    """Returns the text of the manifest. Raises: ConfigurationError."""
    if settings.manifest_json is not None or settings.manifest is None:
        return secret_of(settings.manifest_json) or ""
    return content_of(settings.manifest, "MANIFEST").decode("utf-8", "replace")


def warm_up_of(settings: Settings) -> GraphRequest:
    """Returns the workflow of the warm-up. Raises: ConfigurationError, InvalidGraph, WebError."""
    if settings.warmup_prompt_file is not None:
        file = settings.warmup_prompt_file
        return read_warm_up(content_of(file, "WARMUP_PROMPT_FILE"), str(file))
    web = GuardedClient(may_reach_private=True)
    fetched = web.fetch(secret_of(settings.warmup_prompt_url) or "", LARGEST_WARM_UP_BYTES, WARM_UP_TIMEOUT_S)
    return read_warm_up(fetched.content, "The file of WARMUP_PROMPT_URL")


def content_of(file: Path, setting: str) -> bytes:
    """Raises: ConfigurationError."""
    try:
        if file.stat().st_size > LARGEST_WARM_UP_BYTES:
            raise ConfigurationError(f"{setting}: {file} is larger than {LARGEST_WARM_UP_BYTES // MB} MB")
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {file} cannot be read: {error.strerror}") from error


def create_instances(base: Foundation, changes: Notifier, preparations: Preparations) -> InstanceServices:
    """Creates everything about named instances. `changes` is notified when their list or state changes."""
    settings, sessions, damage = base.settings, base.sessions, base.damage
    store = FileInstanceStore(
        settings.instances_path,
        complete,
        last_good=settings.data_dir / "instances.last-good.json",
        damage=damage,
    )
    directory = InstanceRegistry(store, base.logins)
    base.machines.follow(directory.all)
    monitors = create_monitors(settings, base.journal, sessions, changes, damage, preparations=preparations)
    borrowed = Borrowed(directory, monitors, sessions)
    local_ports = LocalPorts(borrowed.borrow, policy=port_policy(settings), login=borrowed.login)

    def on_change() -> None:
        monitors.reconcile({instance.id: instance for instance in directory.all()})
        local_ports.set_ports(ports_wanted(directory))
        changes.notify()

    directory.listen(on_change)
    return InstanceServices(
        local_ports=local_ports,
        directory=directory,
        monitors=monitors,
        instance_requests=InstanceRequests(sessions, monitors.state),
        known_hosts=KnownHosts(settings.data_dir / "known_hosts"),
        ssh_config=settings.ssh_config,
    )


def create_jobs(
    *,
    settings: Settings,
    journal: RunJournal,
    service: RunService,
    store: JobStore,
    outbox: Outbox,
    web: GuardedClient,
    urls: UrlInputs,
    sessions: Pool[InstanceKey, ComfyUISession],
) -> JobService:
    return JobService(
        journal=journal,
        service=service,
        store=store,
        outbox=outbox,
        presenters=PRESENTERS,
        check_url=web.check,
        send=web.exchange,
        fetch=urls.get_image,
        check_image_url=urls.check_image,
        bucket=settings.bucket,
        refresh=refresher(sessions) if settings.refresh_worker else None,
    )


def check_server_id_and_host_keys(known_hosts: KnownHosts, damage: DamageReport) -> None:
    """Loads the server id and the known host keys, and reports damage. Raises: ConfigurationError."""
    try:
        if known_hosts.path.parent.exists():
            server_id(known_hosts.path.parent, damage)
        for trouble in known_hosts.damaged():
            outcome = "The machines of this file are refused until their host keys are accepted or removed"
            damage.add(known_hosts.path, trouble, outcome)
        known_hosts.adopt()
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def ports_wanted(directory: InstanceRegistry) -> dict[str, PortWanted]:
    """Returns the configured local ports of all enabled instances, by instance id."""
    return {
        instance.id: PortWanted(
            name=instance.name,
            port=instance.local_port,
            address=f"{instance.ssh_connection} {instance.comfyui_port}",
        )
        for instance in directory.all()
        if instance.enabled and instance.local_port is not None
    }


class Borrowed:
    """The sessions that local ports have leased, by instance id. Thread-safe."""

    def __init__(
        self,
        directory: InstanceRegistry,
        monitors: InstanceMonitors,
        sessions: Pool[InstanceKey, ComfyUISession],
    ) -> None:
        self._directory = directory
        self._monitors = monitors
        self._sessions = sessions
        self._leased: dict[str, ComfyUISession] = {}

    @contextmanager
    def borrow(self, instance_id: str) -> Iterator[Connection]:
        """Leases a session for a local port, and yields the connection to its instance."""
        instance = self._directory.require(instance_id)
        self._monitors.acquire(instance)
        with lease_comfyui(self._sessions.lease, key_of_instance(instance)) as session:
            session.connection.check_port()
            self._leased[instance_id] = session
            try:
                yield session.connection
            finally:
                if self._leased.get(instance_id) is session:
                    del self._leased[instance_id]

    def login(self, instance_id: str) -> Mapping[str, str]:
        """Returns headers that pass the login before the ComfyUI to which the last leased session leads."""
        session = self._leased.get(instance_id)
        return {} if session is None else session.client.login_headers()


def create_monitors(
    settings: Settings,
    journal: RunJournal,
    sessions: Pool[InstanceKey, ComfyUISession],
    changes: Notifier,
    damage: DamageReport,
    *,
    preparations: Preparations,
) -> InstanceMonitors:
    options = MonitorOptions(
        wanted_for_s=max(settings.connection_idle_s, settings.idle_warning_s + WARNING_SEEN_S),
        idle_warning_s=settings.idle_warning_s,
    )
    ledger = UsageLedger(FileUsageStore(settings.data_dir / "usage.json", damage))
    return InstanceMonitors(
        MonitorContext(
            sessions=sessions,
            ledger=ledger,
            options=options,
            is_given_up=lambda correlation: is_given_up(journal, correlation),
            tell=changes.notify,
            prepare=preparations.look,
        )
    )


def prompt_names(parts: ApiServices) -> Callable[[str], str | None]:
    """Returns the ids that clients of comfyui-api gave to prompts of ComfyUI. They do not change."""
    return lru_cache(KNOWN_PROMPT_NAMES)(
        lambda prompt_id: parts.jobs.client_id_of_prompt(prompt_id, prompt_requests.NAME)
    )


class App(Flask):
    url_rule_class = MatchingRule


def create_flask(parts: ApiServices) -> Flask:
    """Creates the Flask app with all routes."""
    app = App(__name__, root_path=str(pages.root_directory()))
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = parts.settings.max_upload_mb * 1024 * 1024
    auth.guard(
        app,
        parts.settings,
        pages.OPEN_PATHS | {health.PATH} | prompt_routes.open_paths(prompt_routes.PREFIX),
        api_prefixes(APIS),
        find_body_limit(parts.settings, APIS),
        local_ports=parts.instances.port_numbers,
    )
    mount(app, parts, APIS)
    app.register_blueprint(health.create_blueprint(parts))
    app.register_blueprint(pages.create_blueprint(parts.settings))
    more_paths = partial(custom_workflows.openapi_paths, parts.custom_workflows)
    app.register_blueprint(api_docs.create_blueprint(SECTIONS, more_paths=more_paths))
    app.register_blueprint(
        api_docs.create_blueprint(
            (prompt_routes.section(prompt_routes.PREFIX),),
            prompt_routes.PREFIX,
            "prompt_docs",
            partial(prompt_routes.openapi_paths, parts.custom_workflows, prompt_routes.PREFIX),
        )
    )
    return app


@dataclass(frozen=True, kw_only=True)
class PromptPort:
    """The API of comfyui-api at the root of a port of its own."""

    parts: ApiServices

    @cached_property
    def app(self) -> Flask:
        app = Flask(__name__, root_path=str(pages.root_directory()))
        app.json.sort_keys = False  # type: ignore[attr-defined]
        settings, apis = self.parts.settings, (prompt_routes.OWN_PORT_API,)
        app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_mb * 1024 * 1024
        auth.guard(
            app,
            settings,
            prompt_routes.open_paths(""),
            api_prefixes(apis),
            find_body_limit(settings, apis),
            local_ports=self.parts.instances.port_numbers,
        )
        mount(app, self.parts, apis)
        sections = (prompt_routes.section(""), api_docs.SECTION)
        more_paths = partial(prompt_routes.openapi_paths, self.parts.custom_workflows, "")
        app.register_blueprint(api_docs.create_blueprint(sections, more_paths=more_paths))
        return app

    @property
    def refusals(self) -> BodyLimits:
        return refusals(self.parts.settings)

    def end_waits(self) -> None:
        self.parts.jobs.end_waits()


def prompt_port(parts: ApiServices) -> Iterator[Component]:
    """Yields the component of the port of comfyui-api, if the settings name one."""
    number = parts.settings.comfyui_api_port
    if number is not None:
        setting = f"{PREFIX}COMFYUI_API_PORT"
        port = http.Port(number=number, setting=setting, threads=prompt_routes.OWN_PORT_THREADS)
        served = http.AdditionalPort("comfyui-api", PromptPort(parts=parts), parts.settings, port)
        yield Component(name="port of comfyui-api", open=served.open, start=served.start, stop=served.stop)


def refusals(settings: Settings) -> BodyLimits:
    """Returns the limits of request bodies: per path, and lower for unauthenticated clients."""
    return BodyLimits(
        find_limit=find_body_limit(settings, APIS), is_known=partial(auth.may_be_authorized, settings)
    )


def create_app(settings: Settings | None = None) -> Flask:
    """Returns a started app for a WSGI server with one process."""
    server = create_server(settings or load_settings())
    server.on_data_taken(lambda: start_in_thread("leaving", server.stop))
    server.start()
    return server.app


def open_session(
    key: InstanceKey,
    settings: Settings,
    breaches: LimitBreaches | None = None,
    on_mark: Callable[[PromptMark], None] = lambda _: None,
    machines: NamedMachines | None = None,
    *,
    on_message: Callable[[Message], None] | None = None,
) -> ComfyUISession:
    """Opens a session with an instance. Raises: the errors of `open_connection`; StoreError."""
    our_id = client_id(key, server_id(settings.data_dir))
    connection = open_connection(key.address, key.comfyui_port, connection_options(settings, key.host_key))
    limits, breaches = instance_limits(settings), breaches or LimitBreaches()

    def login() -> Mapping[str, str]:
        return machines.login(key) if machines else {}

    def wanted() -> WantedPort:
        return WantedPort(
            port=key.comfyui_port,
            is_exact=key.is_exact,
            scans=settings.search_ports,
            taken=machines.taken_ports(key) if machines else frozenset(),
            login=login(),
        )

    client = ComfyUIClient(
        connection.base_url, limits=limits, breaches=breaches, on_mark=on_mark, login=login
    )
    feed = EventFeed(
        connection.base_url,
        our_id,
        settings.websocket_reconnect_delay_s,
        limits=limits,
        breaches=breaches,
        login=client.login_headers,
        on_message=on_message,
    )
    return ComfyUISession(connection, client, feed, wanted)


def instance_limits(settings: Settings) -> InstanceLimits:
    return InstanceLimits(
        answer_bytes=settings.largest_answer_mb * MB,
        answer_s=settings.answer_timeout_s,
        message_bytes=settings.largest_message_mb * MB,
    )


def resolved_key(key: InstanceKey, settings: Settings) -> InstanceKey:
    """Returns the key with the address that the SSH configuration makes of it now. Raises: InvalidAddress."""
    return replace(key, address=resolve(key.address, settings.ssh_config))


def connection_options(settings: Settings, host_key: str | None) -> ConnectionOptions:
    passphrase = settings.ssh_key_passphrase
    return ConnectionOptions(
        known_hosts=KnownHosts(settings.data_dir / "known_hosts"),
        key_file=settings.ssh_key,
        key_passphrase=passphrase.get_secret_value() if passphrase else None,
        allowed_key_directories=settings.key_dirs,
        use_agent=settings.uses_ssh_agent,
        config_file=settings.ssh_config,
        pinned_fingerprint=host_key or settings.ssh_host_key,
        allow_loopback_hosts=settings.may_reach_this_machine,
        channel_timeout_s=settings.ssh_silence_limit_s * 4 / 3,
        keepalive_interval_s=settings.ssh_silence_limit_s / 3,
        silence_limit_s=settings.ssh_silence_limit_s,
    )


def path_policy(settings: Settings) -> PathPolicy:
    return PathPolicy(
        readable_dirs=settings.readable_dirs,
        writable_dirs=settings.writable_dirs,
        kinds=settings.allowed_kinds,
        data_dir=settings.data_dir,
        default_output_dir=settings.default_output_dir,
    )


def port_policy(settings: Settings) -> PortPolicy:
    return PortPolicy(
        origins=settings.origins_at_local_ports,
        hosts=settings.allowed_hosts,
        users=PeerUsers(settings.other_users),
        token=settings.api_token.get_secret_value() if settings.api_token else None,
        used_ports=UsedPorts(settings.data_dir / "local_ports.json"),
    )


def dispatch_options(settings: Settings) -> DispatchOptions:
    return DispatchOptions(
        prompts_per_instance=settings.prompts_per_instance,
        move_after_s=settings.move_after_s,
        any_patience_s=settings.any_patience_s,
        resubmissions_of_running=settings.resubmissions,
    )


def storage_settings(settings: Settings) -> StorageSettings:
    name, value = settings.http_auth_header_name, secret_of(settings.http_auth_header_value)
    header = (
        HttpHeader(name=name, value=value, url_pattern=settings.http_auth_urls) if name and value else None
    )
    return StorageSettings(
        s3=S3Account(
            access_key_id=settings.aws_access_key_id,
            secret_access_key=secret_of(settings.aws_secret_access_key),
            session_token=secret_of(settings.aws_session_token),
            endpoint_url=settings.aws_endpoint_url,
            region=settings.aws_region,
        ),
        azure=AzureAccount(
            connection_string=secret_of(settings.azure_storage_connection_string),
            account=settings.azure_storage_account,
            key=secret_of(settings.azure_storage_key),
            sas_token=secret_of(settings.azure_storage_sas_token),
        ),
        hugging_face=HuggingFaceAccount(
            token=secret_of(settings.hf_token), endpoint=settings.hf_endpoint.rstrip("/")
        ),
        http_header=header,
    )


def outbox_options(settings: Settings) -> OutboxOptions:
    return OutboxOptions(
        timeout_s=settings.webhook_timeout_s,
        patience_s=settings.webhook_patience_s,
        kept_s=settings.webhook_kept_s,
        own_urls=frozenset(filter(None, (settings.system_webhook_url,))),
        signing_key=webhook_key(settings),
    )


def webhook_key(settings: Settings) -> bytes | None:
    """Returns the key of signed webhooks, if there is one. Raises: ConfigurationError."""
    if settings.webhook_secret is None:
        return None
    try:
        return signing_key(settings.webhook_secret.get_secret_value())
    except ValueError as error:
        raise ConfigurationError(f"{PREFIX}WEBHOOK_SECRET {error}") from error


def download_rules(settings: Settings) -> DownloadRules:
    return DownloadRules(hosts=settings.provision_hosts, tokens=settings.tokens_by_host)


def pack_rules(settings: Settings) -> PackRules:
    return PackRules(
        packs=settings.provision_packs,
        registry=settings.provision_registry,
        downloads=download_rules(settings),
    )


def system_event_options(settings: Settings) -> SystemEventOptions | None:
    """Returns None if no events are to be sent."""
    if settings.system_webhook_url is None or not settings.system_webhook_events:
        return None
    return SystemEventOptions(
        url=settings.system_webhook_url,
        events=frozenset(settings.system_webhook_events),
        metadata=settings.system_meta,
    )


def runner_options(settings: Settings) -> RunnerOptions:
    return RunnerOptions(
        contact_patience_s=settings.contact_patience_s,
        lost_contact_patience_s=settings.lost_contact_patience_s,
        storage_patience_s=settings.storage_patience_s,
        resubmissions_of_running=settings.resubmissions,
        stall_limit_s=settings.stall_limit_s,
    )


def main() -> None:
    """Entry point of `python app.py`."""
    if len(sys.argv) > 1:
        sys.exit(
            "python app.py takes no options: see docs/settings.md, or use python -m comfyui_workflow serve"
        )
    try:
        http.main(create_server)
    except WorkflowError as error:
        sys.exit(str(error))
