"""/comfyui/instances/*: the named instances, what is known of them, and asking one of them something."""

from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.error_responses import word_error, word_http_error
from comfyui_workflow.api.mount import Api, Parts
from comfyui_workflow.api.request import flag, json_body, number, optional_json_body, text
from comfyui_workflow.comfyui.json_sanitizer import in_json
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunNotFound
from comfyui_workflow.instances.costs import costs_of, idle_warning
from comfyui_workflow.instances.host_key_approval import accept_host_key
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.remote_queue import (
    IsWanted,
    PromptThere,
    interrupt_there,
    prompts_there,
)
from comfyui_workflow.instances.serializers import (
    costs_document,
    instance_document,
    port_document,
    state_document,
)
from comfyui_workflow.runs.model import Run
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.ssh.address import parse_ssh_address
from comfyui_workflow.stores.journal import now

PREFIX = "/comfyui/instances"
MOST_LOG_LINES = 10_000


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("instances", __name__, url_prefix=PREFIX)
    _add_entry_routes(routes, parts)
    _add_asking_routes(routes, parts)
    _add_watch_routes(routes, parts)
    return routes


def tail(log: str, most: int) -> list[str]:
    """A progress bar draws itself over and over in one line: as it was last."""
    lines = log.removesuffix("\n").split("\n")[-most:] if log else []
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    word_error=word_error,
    word_http_error=word_http_error,
)


def _add_entry_routes(routes: Blueprint, parts: Parts) -> None:
    service, directory = parts.service, parts.instances.directory

    def document(instance: Instance) -> dict[str, Any]:
        at, state = now(), parts.instances.watches.state(instance.id)
        port = parts.instances.local_ports.state(instance.id)
        return {
            **instance_document(instance),
            "state": state_document(state, at),
            "local_port_state": port_document(port) if port else None,
            "idle_warning": idle_warning(instance, state, at, parts.settings.idle_warning_s),
        }

    @routes.get("")
    def instances() -> Response:
        documents = [document(instance) for instance in directory.all()]
        return jsonify(success=True, instances=documents, trouble=directory.trouble)

    @routes.post("")
    def add() -> Response:
        instance = directory.add(json_body())
        answer = jsonify(success=True, instance=document(instance), notices=_notices(instance))
        answer.status_code = 201
        return answer

    @routes.get("/costs")
    def costs() -> Response:
        watches = parts.instances.watches
        found = costs_of(directory.all(), service.bills(), watches.usage, watches.removed_usage(), now())
        return jsonify(success=True, **costs_document(found))

    @routes.get("/<instance>")
    def show(instance: str) -> Response:
        found = directory.require(instance)
        return jsonify(success=True, instance=document(found), notices=_notices(found))

    @routes.patch("/<instance>")
    def change(instance: str) -> Response:
        before = directory.require(instance)
        changed = directory.change(before.id, json_body())
        return jsonify(
            success=True,
            instance=document(changed),
            notices=_notices(changed),
            unfinished_runs=_unfinished_runs(service, before),
        )

    @routes.delete("/<instance>")
    def remove(instance: str) -> Response:
        removed = directory.remove(instance)
        unfinished = _unfinished_runs(service, removed)
        message = f"Removed {removed.name}"
        return jsonify(success=True, message=message, id=removed.id, unfinished_runs=unfinished)


def _add_asking_routes(routes: Blueprint, parts: Parts) -> None:
    service, directory, asker = parts.service, parts.instances.directory, parts.instances.asker

    @routes.get("/<instance>/system_stats")
    def system_stats(instance: str) -> Response:
        answer = asker.ask(directory.require(instance), lambda link: link.client.system_stats())
        return jsonify(success=True, system_stats=in_json(answer))

    @routes.get("/<instance>/queue")
    def queue(instance: str) -> Response:
        snapshot = asker.ask(directory.require(instance), lambda link: link.client.queue())
        there = prompts_there(snapshot, lambda workflow_id: _is_run(service, workflow_id))
        return jsonify(
            success=True,
            running=list(map(_prompt_document, there.running)),
            pending=list(map(_prompt_document, there.pending)),
        )

    @routes.post("/<instance>/free")
    def free(instance: str) -> Response:
        body = optional_json_body()
        unload_models = flag(body, "unload_models", default=True)
        free_memory = flag(body, "free_memory", default=True)
        if not (unload_models or free_memory):
            raise InvalidRequest("unload_models or free_memory must be true, or there is nothing to do")
        found = directory.require(instance)
        asker.ask(found, lambda link: link.client.free(unload_models=unload_models, free_memory=free_memory))
        parts.instances.watches.memory_emptied(found.id)
        return jsonify(success=True, message=f"{found.name} frees its memory as soon as no prompt runs")

    @routes.post("/<instance>/interrupt")
    def interrupt(instance: str) -> Response:
        is_wanted = _read_wanted(optional_json_body())
        found = directory.require(instance)
        stopped = asker.ask(
            found,
            lambda link: interrupt_there(
                link,
                is_wanted,
                is_ours=lambda workflow_id: _is_run(service, workflow_id),
                announce=lambda prompt: _cancel_run_of(service, prompt),
            ),
        )
        words = ", ".join(prompt.words for prompt in stopped)
        return jsonify(
            success=True,
            message=f"{found.name} stops {words}" if stopped else f"Nothing was seen running on {found.name}",
            interrupted=list(map(_prompt_document, stopped)),
        )

    @routes.get("/<instance>/logs")
    def logs(instance: str) -> Response:
        most = number(request.args.get("lines", "100"), "lines", 1, MOST_LOG_LINES)
        log = asker.ask(directory.require(instance), lambda link: link.client.log())
        return jsonify(success=True, lines=tail(log, most))


def _add_watch_routes(routes: Blueprint, parts: Parts) -> None:
    directory, watches, known_hosts = (
        parts.instances.directory,
        parts.instances.watches,
        parts.instances.known_hosts,
    )

    @routes.post("/<instance>/connect")
    def connect(instance: str) -> Response:
        found = directory.require(instance)
        watches.connect(found)
        directory.change(found.id, {"keep_connected": True})
        return jsonify(success=True, message=f"Connecting to {found.name}, until it is disconnected")

    @routes.post("/<instance>/disconnect")
    def disconnect(instance: str) -> Response:
        found = directory.require(instance)
        watches.disconnect(found.id)
        directory.change(found.id, {"keep_connected": None})
        return jsonify(success=True, message=f"{found.name} is left alone as soon as no run needs it")

    @routes.post("/<instance>/forget-host-key")
    def forget_host_key(instance: str) -> Response:
        found = directory.require(instance)
        address = parse_ssh_address(found.ssh_connection)
        fingerprint = known_hosts.fingerprint(address.host, address.port)
        is_forgotten = known_hosts.forget(address.host, address.port)
        watches.look_now(found.id)
        return jsonify(
            success=True,
            message=_forgotten_sentence(found, is_forgotten=is_forgotten),
            forgotten=fingerprint if is_forgotten else None,
        )

    @routes.post("/<instance>/accept-host-key")
    def accept(instance: str) -> Response:
        found = directory.require(instance)
        fingerprint = text(json_body(), "fingerprint")
        if not fingerprint:
            raise InvalidRequest("fingerprint is required: that of the key the machine shows, SHA256:…")
        accept_host_key(parts.instances, found, fingerprint, pinned_for_all=parts.settings.ssh_host_key)
        return jsonify(success=True, message=f"The host key of {found.name} is trusted from now on")


def _notices(instance: Instance) -> list[str]:
    """What of its ssh string is ignored, or will be trouble."""
    return list(parse_ssh_address(instance.ssh_connection).notices)


def _unfinished_runs(service: RunService, instance: Instance) -> int:
    return sum(_names(run, instance) for run in service.unfinished())


def _names(run: Run, instance: Instance) -> bool:
    placed_at = None if run.placement is None else run.placement.instance_id
    return instance.id in (run.request.instance_id, placed_at)


def _is_run(service: RunService, workflow_id: str) -> bool:
    try:
        service.get(workflow_id)
    except RunNotFound:
        return False
    return True


def _cancel_run_of(service: RunService, prompt: PromptThere) -> None:
    """So that it knows who stops it. One that has gone elsewhere since is not meant."""
    if prompt.run_id is None or service.get(prompt.run_id).prompt_id != prompt.prompt_id:
        return
    with suppress(RunConflict):  # it has just ended
        service.cancel(prompt.run_id)


def _read_wanted(body: dict[str, Any]) -> IsWanted | None:
    """None for whatever runs."""
    prompt_id, workflow_id = text(body, "prompt_id"), text(body, "workflow_id")
    if prompt_id and workflow_id:
        raise InvalidRequest("Give prompt_id or workflow_id, not both")
    if "" in (prompt_id, workflow_id):
        raise InvalidRequest("prompt_id and workflow_id must not be empty; leave them out to stop what runs")
    if prompt_id:
        return lambda prompt: prompt.prompt_id == prompt_id
    return (lambda prompt: prompt.run_id == workflow_id) if workflow_id else None


def _prompt_document(prompt: PromptThere) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "workflow_id": prompt.run_id,
        "position": prompt.position,
    }


def _forgotten_sentence(instance: Instance, *, is_forgotten: bool) -> str:
    pinned = "; its entry pins the host key, which stays as it is" if instance.host_key else ""
    if not is_forgotten:
        return f"No host key of {instance.name} was known{pinned}"
    return f"Forgot the host key of {instance.name}: the next machine that answers there is trusted{pinned}"
