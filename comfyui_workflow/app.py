"""The server: every part is chosen and joined here. Importing opens nothing and starts nothing.

`python app.py` serves; `create_app(settings)` gives the Flask app to whoever serves it otherwise.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from flask import Flask

from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.api import auth, health
from comfyui_workflow.api.mount import Parts, find_body_limit, mount, places
from comfyui_workflow.api.native import batches, instances, runs, webhooks
from comfyui_workflow.api.runpod import presenter, routes
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.limits import MB, Breaches, InstanceLimits, KnownBreaches
from comfyui_workflow.comfyui.queue import Mark
from comfyui_workflow.delivery.webhooks.sender import Outbox, OutboxOptions
from comfyui_workflow.errors import ConfigurationError, StoreError, WorkflowError
from comfyui_workflow.execution.late_copies import LateCopies
from comfyui_workflow.execution.live_progress import LiveView
from comfyui_workflow.execution.prompt_marks import MarkJudge
from comfyui_workflow.execution.runner import Runner, RunnerOptions
from comfyui_workflow.execution.submit import Sender
from comfyui_workflow.instances.entries import complete
from comfyui_workflow.instances.model import key_of_instance
from comfyui_workflow.instances.monitor import Surroundings, WatchOptions
from comfyui_workflow.instances.monitors import Watches
from comfyui_workflow.instances.registry import InstanceDirectory
from comfyui_workflow.instances.requests import Asker
from comfyui_workflow.instances.services import Instances
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.proxy.model import PortPolicy, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.proxy.used_ports import UsedPorts
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.scheduling.dispatcher import Dispatcher, DispatchOptions
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.scheduling.orphaned_prompts import is_given_up
from comfyui_workflow.server import http
from comfyui_workflow.server.body_limits import Refusals
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.jobs.presenter import Presenters
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.jobs.worker_refresh import refresher
from comfyui_workflow.services.path_policy import LocalFiles
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import Inspector
from comfyui_workflow.sessions.session import InstanceKey, Link, client_id, server_id
from comfyui_workflow.settings import Settings, load_settings
from comfyui_workflow.ssh.connection import ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.base import BatchStore, JobStore
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.api_keys import ApiKeys
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.files.instances import FileInstanceStore
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.files.ownership import Watchman
from comfyui_workflow.stores.files.private_directories import close_to_others
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.files.usage import FileUsageStore
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.web import api_docs, pages

LARGEST_IMAGE_BYTES = 64 * 1024 * 1024
"""Of those that are named by their URL."""
IMAGE_TIMEOUT_S = 120.0
APIS = (runs.API, batches.API, instances.API, webhooks.API, routes.API)
SECTIONS = (
    *(api.section for api in APIS if api.section is not None),
    health.SECTION,
    pages.SECTION,
    api_docs.SECTION,
)
"""Of the OpenAPI document."""
RUNPOD = presenter.RunPodPresenter()
PRESENTERS = Presenters(by_name={presenter.NAME: RUNPOD}, unnamed=RUNPOD)
POLITE_STOP_S = 2.0
"""How long runs may take to come to rest by themselves. One that waits for an instance is cut off then."""
WATCH_STOP_S = 1.0
OUTBOX_STOP_S = 0.5
"""A webhook that takes longer is sent again after the next start."""
WARNING_SEEN_S = 60.0
"""How much longer than until its idle warning an instance is watched after its last run."""
STOP_TIMEOUT_S = 5.0
"""Leaves room to close what is open, so that a SIGTERM is over in ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is started and stopped, and the app that speaks for it."""

    app: Flask
    parts: Parts
    store: FileRunStore
    batches: BatchStore
    jobs: JobStore
    executor: Executor
    links: Pool[InstanceKey, Link]
    copies: LateCopies
    watchman: Watchman
    api_keys: ApiKeys = field(default_factory=ApiKeys)

    def open(self) -> None:
        """Take the data directory and read every record; nothing goes on yet.
        Raises: ConfigurationError; DataTaken."""
        parts, instances = self.parts, self.parts.instances
        data_dir = parts.settings.data_dir
        close_to_others(data_dir)
        look_at_names_and_keys(instances.known_hosts, parts.damage)
        instances.directory.load()
        self.api_keys.take_from_records(data_dir / "runs")
        self.store.open()
        self.api_keys.keep_only({run.run_id for run in self.store.unfinished() if not run.is_accepted})
        self.batches.open()
        self.jobs.open()
        parts.outbox.open()
        parts.service.learn()

    def start(self) -> int:
        """Open the stores and take up every unfinished run; how many.
        Raises: ConfigurationError; DataTaken."""
        self.open()
        self.watchman.start()
        parts, instances = self.parts, self.parts.instances
        instances.watches.load({each.id: each for each in instances.directory.all()})
        parts.batches.resume()
        instances.local_ports.start()
        parts.jobs.mend(parts.damage)
        resumed = parts.service.resume(held_back=parts.jobs.held_back())
        parts.batches.heed_failures()
        parts.jobs.start()
        parts.outbox.start()
        start_in_thread("warm-up", parts.batches.warm_up)
        return resumed

    @property
    def refusals(self) -> Refusals:
        return refusals(self.parts.settings)

    def end_waits(self) -> None:
        """Whoever waits in a request is answered, before the threads of requests are waited for."""
        self.parts.jobs.end_waits()

    @property
    def lost(self) -> str | None:
        """The sentence, once another server works on the data."""
        return self.store.ownership.lost

    def when_lost(self, tell: Callable[[], None]) -> None:
        """`tell` is called, by any thread, when another server works on the data."""
        self.store.ownership.listen(lambda _: tell())

    def stop(self) -> None:
        self.watchman.stop()
        self.copies.stop()
        self.parts.instances.local_ports.stop()
        self.parts.jobs.stop()
        self.parts.outbox.stop(OUTBOX_STOP_S)
        is_at_rest = self.executor.stop(POLITE_STOP_S)
        self.links.close()
        self.parts.instances.watches.close(WATCH_STOP_S)
        if not is_at_rest:
            self.executor.stop(STOP_TIMEOUT_S)
        self.store.close()


def create_server(settings: Settings) -> Server:
    damage = DamageReport()
    store = FileRunStore(settings.data_dir, settings.state_file, damage=damage)
    api_keys = ApiKeys(settings.data_dir / "secrets")
    journal = RunJournal(store, api_keys=api_keys)
    breaches, judge = KnownBreaches(), MarkJudge(journal, store.ownership)
    links: Pool[InstanceKey, Link] = Pool(
        lambda key: open_link(key, settings, breaches.of(key), judge.judge), idle_s=settings.connection_idle_s
    )
    live_view = LiveView()
    instances = create_instances(
        settings,
        journal,
        links,
        lambda: executor.wake(),  # noqa: PLW0108 - made below
        damage,
    )
    store.ownership.listen(lambda _: start_in_thread("leaving", lambda: executor.stop(0)))
    copies = LateCopies(links, journal, settings.late_copies_s)
    sender = Sender(
        server=lambda: server_id(settings.data_dir),
        process=store.ownership.token,
        check_data=store.ownership.check,
        is_taken_up=journal.is_taken_up,
        has_seen_other=judge.has_seen_other,
        expect_copies=copies.expect,
        in_doubt_s=settings.in_doubt_s,
    )
    executor = Dispatcher(
        journal=journal,
        directory=instances.directory,
        watches=instances.watches,
        execute=Runner(journal, links, runner_options(settings), live_view, sender).execute,
        options=dispatch_options(settings),
    )
    service = RunService(journal, store, executor)
    batches = FileBatchStore(settings.data_dir / "batches")
    jobs = FileJobStore(settings.data_dir / "jobs")
    web = GuardedClient(may_reach_private=settings.webhook_private)
    outbox = Outbox(FileWebhookStore(settings.data_dir / "webhooks", damage), web, outbox_options(settings))
    parts = Parts(
        service=service,
        batches=BatchService(journal, store, service, batches, damage),
        jobs=create_jobs(
            settings=settings,
            journal=journal,
            service=service,
            store=jobs,
            outbox=outbox,
            web=web,
            links=links,
        ),
        outbox=outbox,
        instances=instances,
        inspector=Inspector(links),
        live_view=live_view,
        files=local_files(settings),
        uploads=Uploads(settings.data_dir / "uploads", settings.uploads_kept_s, service.images_needed),
        settings=settings,
        damage=damage,
    )
    return Server(
        app=create_flask(parts),
        parts=parts,
        store=store,
        batches=batches,
        jobs=jobs,
        executor=executor,
        links=links,
        api_keys=api_keys,
        copies=copies,
        watchman=Watchman(store.ownership),
    )


def start_in_thread(name: str, work: Callable[[], object]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


def create_instances(
    settings: Settings,
    journal: RunJournal,
    links: Pool[InstanceKey, Link],
    tell: Callable[[], None],
    damage: DamageReport,
) -> Instances:
    """`tell` is called when what is known of them has changed."""
    store = FileInstanceStore(
        settings.instances_path,
        complete,
        last_good=settings.data_dir / "instances.last-good.json",
        damage=damage,
    )
    directory = InstanceDirectory(store)
    watches = create_watches(settings, journal, links, tell, damage)
    local_ports = LocalPorts(
        lambda instance_id: borrow(instance_id, directory, watches, links), policy=port_policy(settings)
    )

    def keep_up() -> None:
        watches.keep_to({instance.id: instance for instance in directory.all()})
        local_ports.follow(ports_wanted(directory))
        tell()

    directory.listen(keep_up)
    return Instances(
        local_ports=local_ports,
        directory=directory,
        watches=watches,
        asker=Asker(links, watches.state),
        known_hosts=KnownHosts(settings.data_dir / "known_hosts"),
    )


def create_jobs(
    *,
    settings: Settings,
    journal: RunJournal,
    service: RunService,
    store: JobStore,
    outbox: Outbox,
    web: GuardedClient,
    links: Pool[InstanceKey, Link],
) -> JobService:
    return JobService(
        journal=journal,
        service=service,
        store=store,
        outbox=outbox,
        presenters=PRESENTERS,
        check_url=web.check,
        send=web.exchange,
        fetch=lambda url, file: web.download(url, file, LARGEST_IMAGE_BYTES, IMAGE_TIMEOUT_S),
        bucket=settings.bucket,
        refresh=refresher(links) if settings.refresh_worker else None,
    )


def look_at_names_and_keys(known_hosts: KnownHosts, damage: DamageReport) -> None:
    """Raises: ConfigurationError."""
    try:
        if known_hosts.path.parent.exists():
            server_id(known_hosts.path.parent, damage)
        for trouble in known_hosts.damaged():
            outcome = "The machines that it told of are refused until their keys are accepted or forgotten"
            damage.add(known_hosts.path, trouble, outcome)
        known_hosts.adopt()
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def ports_wanted(directory: InstanceDirectory) -> dict[str, PortWanted]:
    return {
        instance.id: PortWanted(
            name=instance.name,
            port=instance.local_port,
            address=f"{instance.ssh_connection} {instance.comfyui_port}",
        )
        for instance in directory.all()
        if instance.enabled and instance.local_port is not None
    }


@contextmanager
def borrow(
    instance_id: str, directory: InstanceDirectory, watches: Watches, links: Pool[InstanceKey, Link]
) -> Iterator[str]:
    """The way to the ComfyUI of an instance, for its local port."""
    instance = directory.require(instance_id)
    watches.want(instance)
    with links.lease(key_of_instance(instance)) as link:
        link.connection.check_port()
        yield link.connection.base_url


def create_watches(
    settings: Settings,
    journal: RunJournal,
    links: Pool[InstanceKey, Link],
    tell: Callable[[], None],
    damage: DamageReport,
) -> Watches:
    options = WatchOptions(
        wanted_for_s=max(settings.connection_idle_s, settings.idle_warning_s + WARNING_SEEN_S),
        idle_warning_s=settings.idle_warning_s,
    )
    ledger = UsageLedger(FileUsageStore(settings.data_dir / "usage.json", damage))
    return Watches(
        Surroundings(
            links=links,
            ledger=ledger,
            options=options,
            is_given_up=lambda correlation: is_given_up(journal, correlation),
            tell=tell,
        )
    )


def create_flask(parts: Parts) -> Flask:
    """The routes over a service, whatever that is made of."""
    app = Flask(__name__, root_path=str(pages.root_directory()))
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = parts.settings.max_upload_mb * 1024 * 1024
    auth.guard(
        app,
        parts.settings,
        pages.OPEN_PATHS | {health.PATH},
        places(APIS),
        find_body_limit(parts.settings, APIS),
        local_ports=parts.instances.port_numbers,
    )
    mount(app, parts, APIS)
    app.register_blueprint(health.create_blueprint(parts))
    app.register_blueprint(pages.create_blueprint(parts.settings))
    app.register_blueprint(api_docs.create_blueprint(SECTIONS))
    return app


def refusals(settings: Settings) -> Refusals:
    """Bodies that are refused before they are read: too large for their path, or from nobody we know."""
    return Refusals(
        find_limit=find_body_limit(settings, APIS), is_known=partial(auth.may_be_let_in, settings)
    )


def create_app(settings: Settings | None = None) -> Flask:
    """A started app, for a WSGI server of one process."""
    server = create_server(settings or load_settings())
    server.when_lost(lambda: start_in_thread("leaving", server.stop))
    server.start()
    return server.app


def open_link(
    key: InstanceKey,
    settings: Settings,
    breaches: Breaches | None = None,
    on_mark: Callable[[Mark], None] = lambda _: None,
) -> Link:
    """Raises: what `open_connection` raises; StoreError."""
    our_id = client_id(key, server_id(settings.data_dir))
    connection = open_connection(key.address, key.comfyui_port, connection_options(settings, key.host_key))
    limits, breaches = instance_limits(settings), breaches or Breaches()
    feed = EventFeed(
        connection.base_url,
        our_id,
        settings.websocket_reconnect_delay_s,
        limits=limits,
        breaches=breaches,
    )
    feed.start()
    client = ComfyUIClient(
        connection.base_url,
        absence=f"ComfyUI does not answer on port {key.comfyui_port} of the instance: start it there, "
        "or name its port, with -L in the ssh string",
        limits=limits,
        breaches=breaches,
        on_mark=on_mark,
    )
    return Link(connection, client, feed)


def instance_limits(settings: Settings) -> InstanceLimits:
    return InstanceLimits(
        answer_bytes=settings.largest_answer_mb * MB,
        answer_s=settings.answer_timeout_s,
        message_bytes=settings.largest_message_mb * MB,
    )


def connection_options(settings: Settings, host_key: str | None) -> ConnectionOptions:
    passphrase = settings.ssh_key_passphrase
    return ConnectionOptions(
        known_hosts=KnownHosts(settings.data_dir / "known_hosts"),
        key_file=settings.ssh_key,
        key_passphrase=passphrase.get_secret_value() if passphrase else None,
        allowed_key_directories=settings.key_dirs,
        use_agent=settings.ssh_agent,
        pinned_fingerprint=host_key or settings.ssh_host_key,
        allow_loopback_hosts=settings.may_reach_this_machine,
    )


def local_files(settings: Settings) -> LocalFiles:
    return LocalFiles(
        readable_dirs=settings.readable_dirs,
        writable_dirs=settings.writable_dirs,
        kinds=settings.allowed_kinds,
        data_dir=settings.data_dir,
        default_output_dir=settings.default_output_dir,
    )


def port_policy(settings: Settings) -> PortPolicy:
    return PortPolicy(
        origins=settings.origins_at_local_ports,
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


def outbox_options(settings: Settings) -> OutboxOptions:
    return OutboxOptions(
        timeout_s=settings.webhook_timeout_s,
        patience_s=settings.webhook_patience_s,
        kept_s=settings.webhook_kept_s,
    )


def runner_options(settings: Settings) -> RunnerOptions:
    return RunnerOptions(
        contact_patience_s=settings.contact_patience_s,
        lost_contact_patience_s=settings.lost_contact_patience_s,
        resubmissions_of_running=settings.resubmissions,
        stall_limit_s=settings.stall_limit_s,
    )


def main() -> None:
    """What `python app.py` does."""
    if len(sys.argv) > 1:
        sys.exit(
            "python app.py takes no options: see docs/settings.md, or use python -m comfyui_workflow serve"
        )
    try:
        http.main(create_server)
    except WorkflowError as error:
        sys.exit(str(error))
