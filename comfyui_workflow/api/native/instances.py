"""/comfyui/instances/*: the registry of named instances, their states and costs, and requests to one
instance."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.native.provisions import ProvisionViews
from comfyui_workflow.api.native.provisions import operations as provision_operations
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import (
    flag,
    json_body,
    number,
    optional_json_body,
    refuse_unknown_parts,
    text,
)
from comfyui_workflow.comfyui.json_sanitizer import sanitize_json
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunNotFound
from comfyui_workflow.instances.costs import costs_of, idle_warning
from comfyui_workflow.instances.host_key_approval import accept_host_key
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.remote_queue import (
    PromptFilter,
    RemotePrompt,
    interrupt_prompt,
    remote_queue_of,
)
from comfyui_workflow.instances.serializers import (
    costs_document,
    instance_document,
    port_document,
    state_document,
)
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.runs.model import Run
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.stores.journal import now

PREFIX = "/comfyui/instances"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EntryViews:
    """Routes of the registry: list, add, change and remove instances, and their costs."""

    service: RunService
    instances: InstanceServices
    idle_warning_s: float

    def list_instances(self) -> Response:
        directory = self.instances.directory
        documents = [self._document(instance) for instance in directory.all()]
        return jsonify(success=True, instances=documents, trouble=directory.trouble)

    def add(self) -> Response:
        instance = self.instances.directory.add(json_body())
        answer = jsonify(success=True, instance=self._document(instance), notices=_notices(instance))
        answer.status_code = 201
        return answer

    def costs(self) -> Response:
        monitors, billable_runs = self.instances.monitors, self.service.billable_runs()
        instances = self.instances.directory.all()
        found = costs_of(instances, billable_runs, monitors.usage, monitors.removed_usage(), now())
        return jsonify(success=True, **costs_document(found))

    def show(self, instance: str) -> Response:
        found = self.instances.directory.require(instance)
        return jsonify(success=True, instance=self._document(found), notices=_notices(found))

    def change(self, instance: str) -> Response:
        before = self.instances.directory.require(instance)
        changed = self.instances.directory.change(before.id, json_body())
        return jsonify(
            success=True,
            instance=self._document(changed),
            notices=_notices(changed),
            unfinished_runs=_unfinished_runs(self.service, before),
        )

    def remove(self, instance: str) -> Response:
        removed = self.instances.directory.remove(instance)
        unfinished = _unfinished_runs(self.service, removed)
        message = f"Removed {removed.name}"
        return jsonify(success=True, message=message, id=removed.id, unfinished_runs=unfinished)

    def _document(self, instance: Instance) -> dict[str, Any]:
        at, state = now(), self.instances.monitors.state(instance.id)
        port = self.instances.local_ports.state(instance.id)
        return {
            **instance_document(instance),
            "comfyui_login": self.instances.directory.login_kind(instance.id),
            "state": state_document(state, at),
            "local_port_state": port_document(port) if port else None,
            "idle_warning": idle_warning(instance, state, at, self.idle_warning_s),
        }


@dataclass(frozen=True, kw_only=True)
class RequestViews:
    """Routes that send a request to the ComfyUI of an instance."""

    service: RunService
    instances: InstanceServices

    def system_stats(self, instance: str) -> Response:
        answer = self._ask(instance, lambda session: session.client.system_stats())
        return jsonify(success=True, system_stats=sanitize_json(answer))

    def queue(self, instance: str) -> Response:
        snapshot = self._ask(instance, lambda session: session.client.queue())
        remote_queue = remote_queue_of(snapshot, lambda run_id: _is_run(self.service, run_id))
        return jsonify(
            success=True,
            running=list(map(_prompt_document, remote_queue.running)),
            pending=list(map(_prompt_document, remote_queue.pending)),
        )

    def free(self, instance: str) -> Response:
        body = optional_json_body(schemas.FreeBody)
        unload_models = flag(body, "unload_models", default=True)
        free_memory = flag(body, "free_memory", default=True)
        if not (unload_models or free_memory):
            raise InvalidRequest("unload_models or free_memory must be true, or there is nothing to do")
        found = self.instances.directory.require(instance)
        self.instances.instance_requests.ask(
            found, lambda session: session.client.free(unload_models=unload_models, free_memory=free_memory)
        )
        self.instances.monitors.mark_memory_freed(found.id)
        return jsonify(success=True, message=f"{found.name} frees its memory as soon as no prompt runs")

    def interrupt(self, instance: str) -> Response:
        is_wanted = _read_prompt_filter(optional_json_body(schemas.InterruptBody))
        found = self.instances.directory.require(instance)
        stopped = self.instances.instance_requests.ask(
            found,
            lambda session: interrupt_prompt(
                session,
                is_wanted,
                is_ours=lambda run_id: _is_run(self.service, run_id),
                announce=lambda prompt: _cancel_run_of(self.service, prompt),
            ),
        )
        description = ", ".join(prompt.words for prompt in stopped)
        return jsonify(
            success=True,
            message=f"{found.name} stops {description}"
            if stopped
            else f"No prompt is running on {found.name}",
            interrupted=list(map(_prompt_document, stopped)),
        )

    def logs(self, instance: str) -> Response:
        max_lines = number(request.args.get("lines", "100"), "lines", 1, schemas.MOST_LOG_LINES)
        log = self._ask(instance, lambda session: session.client.log())
        return jsonify(success=True, lines=tail(log, max_lines))

    def _ask(self, instance: str, ask: Callable[[ComfyUISession], T]) -> T:
        return self.instances.instance_requests.ask(self.instances.directory.require(instance), ask)


@dataclass(frozen=True, kw_only=True)
class ConnectionViews:
    """Routes of the connection to an instance and of its host key."""

    instances: InstanceServices
    pinned_for_all: str | None

    def connect(self, instance: str) -> Response:
        found = self.instances.directory.require(instance)
        self.instances.monitors.connect(found)
        self.instances.directory.change(found.id, {"keep_connected": True})
        return jsonify(
            success=True, message=f"Connecting to {found.name}; the connection is kept until you disconnect"
        )

    def disconnect(self, instance: str) -> Response:
        found = self.instances.directory.require(instance)
        self.instances.monitors.disconnect(found.id)
        self.instances.directory.change(found.id, {"keep_connected": None})
        return jsonify(success=True, message=f"{found.name} is disconnected as soon as no run needs it")

    def forget_host_key(self, instance: str) -> Response:
        found = self.instances.directory.require(instance)
        address, known_hosts = self.instances.resolved_address(found), self.instances.known_hosts
        fingerprint = known_hosts.fingerprint(address.host, address.port)
        is_forgotten = known_hosts.forget(address.host, address.port)
        self.instances.monitors.poll_now(found.id)
        return jsonify(
            success=True,
            message=_forgotten_message(found, is_forgotten=is_forgotten),
            forgotten=fingerprint if is_forgotten else None,
        )

    def accept_host_key(self, instance: str) -> Response:
        found = self.instances.directory.require(instance)
        fingerprint = text(json_body(schemas.HostKeyBody), "fingerprint")
        if not fingerprint:
            raise InvalidRequest("fingerprint is required: that of the key the machine shows, SHA256:…")
        accept_host_key(self.instances, found, fingerprint, pinned_for_all=self.pinned_for_all)
        return jsonify(success=True, message=f"The host key of {found.name} is trusted from now on")


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("instances", __name__)
    service, instances, settings = services.service, services.instances, services.settings
    entries = EntryViews(service=service, instances=instances, idle_warning_s=settings.idle_warning_s)
    register(routes, ENTRY_OPERATIONS, entries, refuse_unknown_parts)
    requests = RequestViews(service=service, instances=instances)
    register(routes, REQUEST_OPERATIONS, requests, refuse_unknown_parts)
    provisions = ProvisionViews(directory=instances.directory, provisions=services.provisions)
    register(routes, PROVISION_OPERATIONS, provisions, refuse_unknown_parts)
    connections = ConnectionViews(instances=instances, pinned_for_all=settings.ssh_host_key)
    register(routes, CONNECTION_OPERATIONS, connections, refuse_unknown_parts)
    return routes


def tail(log: str, max_lines: int) -> list[str]:
    """Returns the last lines of a log. A progress bar overwrites its line with carriage returns: only its
    last state is returned."""
    lines = log.removesuffix("\n").split("\n")[-max_lines:] if log else []
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def _notices(instance: Instance) -> list[str]:
    """Returns the warnings about its ssh string: ignored options, and options that will cause errors."""
    return list(instance.address.notices)


def _unfinished_runs(service: RunService, instance: Instance) -> int:
    return sum(_uses(run, instance) for run in service.unfinished())


def _uses(run: Run, instance: Instance) -> bool:
    assigned_id = None if run.placement is None else run.placement.instance_id
    return instance.id in (run.request.instance_id, assigned_id)


def _is_run(service: RunService, workflow_id: str) -> bool:
    try:
        service.get(workflow_id)
    except RunNotFound:
        return False
    return True


def _cancel_run_of(service: RunService, prompt: RemotePrompt) -> None:
    """Cancels the run of a prompt before the prompt is interrupted, so that the run ends as cancelled. Does
    nothing if the run has another prompt since."""
    if prompt.run_id is None or service.get(prompt.run_id).prompt_id != prompt.prompt_id:
        return
    with suppress(RunConflict):  # the run has just ended
        service.cancel(prompt.run_id)


def _read_prompt_filter(body: dict[str, Any]) -> PromptFilter | None:
    """Parses `prompt_id` or `workflow_id`. Returns None if every running prompt is to be stopped."""
    prompt_id, workflow_id = text(body, "prompt_id"), text(body, "workflow_id")
    if prompt_id and workflow_id:
        raise InvalidRequest("Give prompt_id or workflow_id, not both")
    if "" in (prompt_id, workflow_id):
        raise InvalidRequest("prompt_id and workflow_id must not be empty; leave them out to stop what runs")
    if prompt_id:
        return lambda prompt: prompt.prompt_id == prompt_id
    return (lambda prompt: prompt.run_id == workflow_id) if workflow_id else None


def _prompt_document(prompt: RemotePrompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "workflow_id": prompt.run_id,
        "position": prompt.position,
    }


def _forgotten_message(instance: Instance, *, is_forgotten: bool) -> str:
    pinned = "; its entry pins the host key, which stays as it is" if instance.host_key else ""
    if not is_forgotten:
        return f"No host key of {instance.name} was known{pinned}"
    return f"Forgot the host key of {instance.name}: the next machine that answers there is trusted{pinned}"


ENTRY_OPERATIONS = (
    Operation(
        method="GET",
        rule=PREFIX,
        view=EntryViews.list_instances,
        summary="List the instances and their states",
        description="Returns the last known states; never contacts an instance.",
        answer=schemas.InstancesResponse,
    ),
    Operation(
        method="POST",
        rule=PREFIX,
        view=EntryViews.add,
        summary="Add an instance",
        description="Errors: 400 invalid field, or the name or the local port is taken; 409 the file of the "
        "instances cannot be read.",
        body=schemas.InstanceBody,
        status=201,
        answer=schemas.InstanceResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/costs",
        view=EntryViews.costs,
        summary="Get the costs of the instances",
        description="Costs of runs and of idle time since each instance was added.",
        answer=schemas.CostsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<instance>",
        view=EntryViews.show,
        summary="Get an instance and its state",
        description="Errors: 404 `instance_not_found`.",
        answer=schemas.InstanceResponse,
    ),
    Operation(
        method="PATCH",
        rule=f"{PREFIX}/<instance>",
        view=EntryViews.change,
        summary="Change fields of an instance",
        description="Errors: 400 invalid field; 404 `instance_not_found`; 409 the file of the instances "
        "cannot be read.",
        body=schemas.InstanceBody,
        answer=schemas.InstanceChanged,
    ),
    Operation(
        method="DELETE",
        rule=f"{PREFIX}/<instance>",
        view=EntryViews.remove,
        summary="Remove an instance",
        description="Removes the entry only; nothing changes on the machine. Errors: 404 "
        "`instance_not_found`; 409 the file of the instances cannot be read.",
        answer=schemas.InstanceRemoved,
    ),
)

REQUEST_OPERATIONS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<instance>/system_stats",
        view=RequestViews.system_stats,
        summary="Get the system stats of ComfyUI",
        description="Connects first if necessary, and waits at most 10 s. Errors: 404 "
        "`instance_not_found`, 502 instance or ComfyUI unreachable, 503 too many requests "
        "at once.",
        answer=schemas.SystemStatsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<instance>/queue",
        view=RequestViews.queue,
        summary="List the prompts in the queue of an instance",
        description="Connects first if necessary, and waits at most 10 s. Errors: 404 "
        "`instance_not_found`, 502 instance or ComfyUI unreachable, 503 too many requests "
        "at once.",
        answer=schemas.QueueResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/free",
        view=RequestViews.free,
        summary="Unload models and free the memory of an instance",
        description="ComfyUI does this as soon as no prompt is running. Connects first if necessary, "
        "and waits at most 10 s. Errors: 404 `instance_not_found`, 502 instance or ComfyUI "
        "unreachable, 503 too many requests at once.",
        body=schemas.FreeBody,
        is_body_optional=True,
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/interrupt",
        view=RequestViews.interrupt,
        summary="Stop the running prompt of an instance",
        description="If the prompt belongs to a run of this server, the run is cancelled. Errors: 409 "
        "the given prompt is not running; others as for `queue`.",
        body=schemas.InterruptBody,
        is_body_optional=True,
        answer=schemas.Interrupted,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<instance>/logs",
        view=RequestViews.logs,
        summary="Get the last lines of ComfyUI's log",
        description="Connects first if necessary, and waits at most 10 s. Errors: 404 "
        "`instance_not_found`, 502 instance or ComfyUI unreachable, 503 too many requests "
        "at once.",
        query=schemas.LogQuery,
        answer=schemas.LogResponse,
    ),
)

CONNECTION_OPERATIONS = (
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/connect",
        view=ConnectionViews.connect,
        summary="Connect to an instance and stay connected",
        description="Returns at once. The connection is kept until `disconnect`, also across restarts of the "
        "server. Errors: 404 `instance_not_found`.",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/disconnect",
        view=ConnectionViews.disconnect,
        summary="Disconnect from an instance",
        description="The connection is closed as soon as no run needs it. Errors: 404 `instance_not_found`.",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/forget-host-key",
        view=ConnectionViews.forget_host_key,
        summary="Forget the host key of an instance",
        description="The next key that the machine at this address presents is trusted. Errors: 404 "
        "`instance_not_found`.",
        answer=schemas.HostKeyForgotten,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<instance>/accept-host-key",
        view=ConnectionViews.accept_host_key,
        summary="Trust the host key that the machine presents",
        description="`fingerprint` must be that of the presented key. Errors: 404 `instance_not_found`, 409 "
        "`host_key_conflict`.",
        body=schemas.HostKeyBody,
        answer=schemas.Done,
    ),
)

PROVISION_OPERATIONS = provision_operations(PREFIX)

API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag="Instances",
        description="Named instances, their states, and requests to them. Details: docs/api/instances.md",
        operations=(
            *ENTRY_OPERATIONS,
            *REQUEST_OPERATIONS,
            *PROVISION_OPERATIONS,
            *CONNECTION_OPERATIONS,
        ),
        failure=schemas.Failure,
        path_parameters={"instance": "Id of the instance, or its name (case-insensitive)"},
    ),
)
