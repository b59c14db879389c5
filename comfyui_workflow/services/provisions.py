"""Machines from a manifest: one application at a time on each machine, in a thread, that a restart of this
server continues.

How it works. The manifest of an application, which may have secrets in its URLs, is saved apart from all
records until the application has ended. Its state is saved with each step: the log, and whether a restart of
ComfyUI is due. An application that was interrupted, by a cut connection or the end of this server, asks the
machine again what is there, and continues. At its end the lock is saved: what is on the machine now.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    ConfigurationError,
    InvalidRequest,
    ProvisionFailed,
    RunConflict,
    Stopped,
    StoreError,
    WorkflowError,
)
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text, shown
from comfyui_workflow.provisioning.downloads import PlacedFile
from comfyui_workflow.provisioning.manifest import Manifest, read_manifest
from comfyui_workflow.provisioning.manifest_plan import Plan
from comfyui_workflow.provisioning.manifests import Application, KnownHashes, ManifestProvisioner
from comfyui_workflow.retry import Backoff, HighWaterMarks
from comfyui_workflow.runs.credentials import RequestSecrets, read_credentials
from comfyui_workflow.runs.document import serialize_time
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_session
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.stores.journal import now

MOST_AT_ONCE = 32
MOST_PLANS = 4
CONTACT_PATIENCE_S = 30.0
PATIENCE_S = 600.0
"""An application that comes no further for so long has failed."""
MOST_LOG_LINES = 500
CANCELLED = "cancelled by a request"
STOPPED = "the server stops"
WAIT_S = 1.0

log = logging.getLogger(__name__)


class ProvisionStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ProvisionStore(Protocol):
    def state(self, machine: str) -> dict[str, Any] | None: ...

    def lock(self, machine: str) -> dict[str, Any] | None: ...

    def save_state(self, machine: str, state: Mapping[str, Any]) -> None:
        """Raises: StoreError."""

    def save_lock(self, machine: str, lock: Mapping[str, Any]) -> None:
        """Raises: StoreError."""


class SecretStore(Protocol):
    """The orders that are not ended, by machine."""

    def put(self, machine: str, order: str) -> None:
        """Raises: StoreError."""

    def get(self, machine: str) -> str | None: ...

    def forget(self, machine: str) -> None: ...

    def run_ids(self, within_s: float) -> list[str]:
        """Returns the machines."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A manifest with its secrets, as it was requested."""

    given: object = field(repr=False)
    credentials: object = field(default=None, repr=False)
    manifest: Manifest
    secrets: RequestSecrets

    def encoded(self) -> str:
        return json.dumps({"manifest": self.given, "credentials": self.credentials})


def read_order(given: object, credentials: object = None) -> Order:
    """Raises: InvalidRequest."""
    secrets = RequestSecrets(credentials=read_credentials(credentials))
    return Order(given=given, credentials=credentials, manifest=read_manifest(given), secrets=secrets)


class Provision:
    """The last application of a manifest on one machine. Thread-safe. Implements `Progressing`."""

    def __init__(self, machine: str, store: ProvisionStore, begin: Mapping[str, Any]) -> None:
        self.machine = machine
        self.stop = CancelToken()
        self._store = store
        self._lock = threading.Lock()
        self.status = ProvisionStatus.RUNNING
        self._began_at: str | None = serialize_time(now())
        self._ended_at: str | None = None
        self._error: str | None = None
        self._activity: str | None = None
        self._log = deque[dict[str, Any]](maxlen=MOST_LOG_LINES)
        self._lines = 0
        self._plan: list[Any] = []
        self._restart_marker = as_text(begin.get("restart_marker"))
        self._placed: dict[str, tuple[int, int | None, str]] = {}
        self.marks = HighWaterMarks(lambda: None)
        self._is_started = False
        self._changed = threading.Condition(self._lock)

    @classmethod
    def restored(cls, machine: str, store: ProvisionStore, state: Mapping[str, Any]) -> "Provision":
        """Returns the application of an earlier process, as it was saved."""
        found = cls(machine, store, state)
        status = as_text(state.get("status")) or ""
        found.status = ProvisionStatus(status) if status in list(ProvisionStatus) else ProvisionStatus.FAILED
        found._began_at, found._ended_at = as_text(state.get("began_at")), as_text(state.get("ended_at"))
        found._error = as_text(state.get("error"))
        found._log.extend(map(dict, map(as_object, as_list(state.get("log")))))
        found._lines = max((int(each.get("number") or 0) for each in found._log), default=0)
        found._plan = as_list(state.get("plan"))
        return found

    def document(self, after: int = 0) -> dict[str, Any]:
        """Returns the state as a JSON object; of the log, the lines behind number `after`."""
        with self._lock:
            return {
                "status": self.status.value,
                "began_at": self._began_at,
                "ended_at": self._ended_at,
                "error": self._error,
                "activity": self._activity,
                "plan": list(self._plan),
                "log": [each for each in self._log if each["number"] > after],
            }

    def say(self, sentence: str) -> None:
        with self._lock:
            self._lines += 1
            self._log.append({"number": self._lines, "at": serialize_time(now()), "text": shown(sentence)})
            self._activity = None
            self._changed.notify_all()
        log.info("%s: %s", self.machine, sentence)
        self._save()

    def show(self, sentence: str) -> None:
        with self._lock:
            self._activity = shown(sentence)

    def advanced(self, item: str, position: int) -> None:
        self.marks.note(item, position)

    def note_started(self) -> None:
        """Everything but the models of `after_start` is there."""
        with self._changed:
            self._is_started = True
            self._changed.notify_all()

    def wait_for_start(self, timeout_s: float) -> str | None:
        """Waits for `note_started` or the end. Returns what is being done if it takes longer."""
        with self._changed:
            if self._changed.wait_for(
                lambda: self._is_started or self.status is not ProvisionStatus.RUNNING, timeout_s
            ):
                return None
            latest = self._log[-1]["text"] if self._log else "The manifest is being applied"
            return self._activity or str(latest)

    def planned(self, plan: Plan) -> None:
        with self._lock:
            self._plan = [each.document() for each in plan.items]
        if plan.is_done and self._restart_marker is None:
            self.say("Everything is there: nothing is to be done")
        self._save()

    def set_restart_due(self, marker: str | None) -> None:
        with self._lock:
            if self._restart_marker == marker:
                return
            self._restart_marker = marker
        self._save()

    def restart_is_due(self, session: ComfyUISession) -> bool:
        marker = self._restart_marker
        if marker is None:
            return False
        return marker == "" or session.is_same_boot(marker)  # empty: this ComfyUI takes no marker

    def placed(self, path: str, file: PlacedFile) -> None:
        if file.sha256 is not None:
            self._placed[path] = (file.size, None, file.sha256)

    def known_hashes(self) -> KnownHashes:
        locked = self._store.lock(self.machine) or {}
        known = dict[str, tuple[int, int | None, str]]()
        for each in map(as_object, as_list(locked.get("models"))):
            path, digest = as_text(each.get("path")), as_text(each.get("sha256"))
            if path and digest and isinstance(each.get("size"), int) and isinstance(each.get("time_ns"), int):
                known[path] = (each["size"], each["time_ns"], digest)
        return {**known, **self._placed}

    def end(self, status: ProvisionStatus, error: str | None = None) -> None:
        with self._lock:
            self.status, self._error, self._activity = status, error, None
            self._ended_at = serialize_time(now())
            self._changed.notify_all()
        self._save()

    def _save(self) -> None:
        """The log of a full disk is lost; the application itself goes on."""
        state = {**self.document(), "activity": None, "restart_marker": self._restart_marker}
        try:
            self._store.save_state(self.machine, state)
        except StoreError as error:
            log.error("%s: %s", self.machine, error)


Alone = Callable[[ComfyUISession, CancelToken], AbstractContextManager[None]]
KeyOf = Callable[[str], InstanceKey | None]
"""Returns the session key of a machine; None if there is no such instance any more."""


class ProvisionService:
    """Thread-safe."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        provisioner: ManifestProvisioner,
        store: ProvisionStore,
        orders: SecretStore,
        alone: Alone,
        key_of: KeyOf,
    ) -> None:
        self._sessions = sessions
        self._provisioner = provisioner
        self._store = store
        self._orders = orders
        self._alone = alone
        self._key_of = key_of
        self._stop = CancelToken()
        self._lock = threading.Lock()
        self._known: dict[str, Provision] = {}
        self._plans = ConcurrencyLimit(MOST_PLANS, f"{MOST_PLANS} manifests are being planned just now")
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="provision")

    def resume(self) -> None:
        """Continues the applications that the end of an earlier process interrupted."""
        for machine in self._orders.run_ids(within_s=10 * 365 * 86_400.0):
            key, encoded = self._key_of(machine), self._orders.get(machine)
            try:
                told = as_object(json.loads(encoded or "null"))
                order = read_order(told.get("manifest"), told.get("credentials"))
            except (ValueError, WorkflowError) as error:
                log.error("%s: its manifest cannot be applied any more: %s", machine, error)
                key = None
            if key is None:
                self._orders.forget(machine)
                self._restored(machine)
                continue
            provision = self._restored(machine) or Provision(machine, self._store, {})
            provision.status = ProvisionStatus.RUNNING
            provision.say("Continued after a restart of the server")
            with self._lock:
                self._known[machine] = provision
            self._threads.submit(self._run, provision, key, order)

    def stop(self) -> None:
        self._stop.cancel("the server stops")
        self._threads.shutdown(wait=False, cancel_futures=True)

    def state(self, machine: str) -> Provision | None:
        with self._lock:
            found = self._known.get(machine)
        return found or self._restored(machine)

    def lock(self, machine: str) -> dict[str, Any] | None:
        return self._store.lock(machine)

    def plan(self, machine: str, key: InstanceKey, order: Order) -> Plan:
        """Changes nothing. Raises: ProvisionFailed; InstanceError, ComfyUIError; ServerBusy; Stopped."""
        scratch = Provision(machine, _Unsaved(self._store), {})
        with self._plans.taken(), lease_session(self._sessions, key, CONTACT_PATIENCE_S) as session:
            return self._provisioner.plan(self._application(scratch, session, order))

    def start(self, machine: str, key: InstanceKey, order: Order) -> Provision:
        """Starts an application, which goes on after this call. If this very manifest is being applied, that
        application is returned. Raises: RunConflict if another one is; StoreError; Stopped."""
        self._stop.check()
        encoded = order.encoded()
        with self._lock:
            found = self._known.get(machine)
            if found is not None and found.status is ProvisionStatus.RUNNING:
                if self._orders.get(machine) == encoded:
                    return found
                raise RunConflict("A manifest is being applied there already: wait for its end, or cancel it")
            self._orders.put(machine, encoded)
            before = self._store.state(machine) or {}
            provision = self._known[machine] = Provision(machine, self._store, before)
        self._threads.submit(self._run, provision, key, order)
        return provision

    def apply_and_wait(
        self, machine: str, key: InstanceKey, order: Order, stop: CancelToken, say: Callable[[str], None]
    ) -> None:
        """Applies a manifest, after another one that is being applied there. Returns when everything but the
        models of `after_start` is there. Raises: ProvisionFailed; StoreError; Stopped."""
        while True:
            try:
                provision = self.start(machine, key, order)
                break
            except RunConflict as error:
                say(str(error))
            stop.wait(WAIT_S)
            stop.check()
        while (told := provision.wait_for_start(WAIT_S)) is not None:
            say(told)
            stop.check()
        reason = provision.document()["error"]
        if provision.status is not ProvisionStatus.RUNNING and reason is not None:
            raise ProvisionFailed(reason)

    def cancel(self, machine: str) -> bool:
        """Cancels the application on a machine. False if there is none."""
        with self._lock:
            found = self._known.get(machine)
        if found is None or found.status is not ProvisionStatus.RUNNING:
            return False
        found.stop.cancel(CANCELLED)
        return True

    def _restored(self, machine: str) -> Provision | None:
        state = self._store.state(machine)
        found = None if state is None else Provision.restored(machine, self._store, state)
        is_given_up = found is not None and found.status is ProvisionStatus.RUNNING
        if found is not None and is_given_up and self._orders.get(machine) is None:
            found.end(ProvisionStatus.FAILED, "It could not be continued after a restart of the server")
        return found

    def _run(self, provision: Provision, key: InstanceKey, order: Order) -> None:
        """The thread of an application."""
        status, error = ProvisionStatus.COMPLETED, None
        with self._stop.on_cancel(partial(provision.stop.cancel, STOPPED)):
            try:
                self._attempts(provision, key, order)
            except Stopped:
                if self._stop.is_set:
                    return  # the next start continues
                status, error = ProvisionStatus.CANCELLED, "Cancelled; what was done stays"
            except WorkflowError as failure:
                status, error = ProvisionStatus.FAILED, shown(failure)
            except Exception as failure:
                log.exception("a bug of this server: a manifest is not applied")
                status, error = ProvisionStatus.FAILED, f"Internal error: {type(failure).__name__}"
        self._orders.forget(provision.machine)  # before the end is told: then no secret is left
        provision.end(status, error)

    def _attempts(self, provision: Provision, key: InstanceKey, order: Order) -> None:
        """Repeats the application until it has succeeded. Raises: as `ManifestProvisioner.apply`."""
        backoff, said = Backoff(), ""
        provision.marks = HighWaterMarks(backoff.reset)
        while True:
            try:
                with lease_session(self._sessions, key, CONTACT_PATIENCE_S) as session:
                    self._apply(provision, self._application(provision, session, order))
                return
            except WorkflowError as error:
                if not error.is_transient or backoff.failing_for_s() > PATIENCE_S:
                    raise
                if str(error) != said:
                    said = str(error)
                    provision.say(f"{said.rstrip('.')}; trying again")
            provision.stop.wait(backoff.next_wait_s())
            provision.stop.check()

    def _apply(self, provision: Provision, application: Application) -> None:
        plan = self._provisioner.apply_before_start(application)
        provision.note_started()
        self._provisioner.apply_after_start(application, plan)
        provision.show("Reading what is there now")
        lock = self._provisioner.lock(application)
        version = application.session.client.system().comfyui_version
        head = {"locked_at": serialize_time(now()), "comfyui_version": version}
        self._store.save_lock(provision.machine, {**head, **lock})

    def _application(self, provision: Provision, session: ComfyUISession, order: Order) -> Application:
        return Application(
            session=session,
            manifest=order.manifest,
            secrets=order.secrets,
            stop=provision.stop,
            progress=provision,
            alone=partial(self._alone, session, provision.stop),
        )


@dataclass(frozen=True, kw_only=True)
class ManifestStep:
    """Applies the manifest of the settings to each ComfyUI that has just started: a step of
    `execution.preparations`."""

    provisions: ProvisionService
    machine_of: Callable[[InstanceKey], str]
    read: Callable[[], object]
    """Returns the manifest, parsed or as text. Raises: ConfigurationError."""
    name: str = "The manifest"

    def check(self) -> None:
        """Raises: ConfigurationError."""
        try:
            read_order(self.read())
        except InvalidRequest as error:
            raise ConfigurationError(f"The manifest of the settings is not usable: {error}") from error

    def carry_out(
        self, key: InstanceKey, _session: ComfyUISession, stop: CancelToken, say: Callable[[str], None]
    ) -> None:
        order = read_order(self.read())
        self.provisions.apply_and_wait(self.machine_of(key), key, order, stop, say)


@dataclass(frozen=True)
class _Unsaved:
    """The store of a plan, which changes nothing."""

    store: ProvisionStore

    def state(self, machine: str) -> dict[str, Any] | None:
        return self.store.state(machine)

    def lock(self, machine: str) -> dict[str, Any] | None:
        return self.store.lock(machine)

    def save_state(self, machine: str, state: Mapping[str, Any]) -> None:
        pass

    def save_lock(self, machine: str, lock: Mapping[str, Any]) -> None:
        pass
