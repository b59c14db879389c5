"""/distributed/config: the workers and the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, jsonify

from comfyui_workflow.api.comfyui_distributed import schemas
from comfyui_workflow.api.comfyui_distributed.bodies import body_of_request
from comfyui_workflow.api.comfyui_distributed.configuration import (
    changed_fields,
    config_document,
    is_new_worker,
    new_fields,
    read_config,
    read_master,
    read_setting,
)
from comfyui_workflow.api.comfyui_distributed.errors import Missing
from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.api.operations import Operation
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.stores.base import DistributedSettingsStore

Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConfigViews:
    machines: Machines
    settings: DistributedSettingsStore

    def config(self) -> Response:
        return jsonify(self._document())

    def change_config(self) -> Response:
        settings, parts = read_config(body_of_request("Config payload must be an object"))
        if "workers" in parts:
            self._replace_workers(parts["workers"])
        self.settings.update(partial(_replaced, parts, settings))
        return jsonify(status="success", config=self._document())

    def update_worker(self) -> Response:
        body = body_of_request()
        if body.get("worker_id") is None:
            raise InvalidRequest("Missing worker_id")
        self._update_worker(str(body["worker_id"]), body)
        return jsonify(status="success")

    def delete_worker(self) -> Response:
        body = body_of_request()
        if body.get("worker_id") is None:
            raise InvalidRequest("Missing worker_id")
        removed = self.machines.instances.directory.remove(self.machines.worker(str(body["worker_id"])).id)
        return jsonify(status="success", message=f"Worker {removed.name} deleted")

    def update_setting(self) -> Response:
        changed = read_setting(body_of_request())
        self.settings.update(lambda known: _changed_settings(known, changed))
        return jsonify(status="success", message=f"Setting '{next(iter(changed))}' updated.")

    def update_master(self) -> Response:
        changed = read_master(body_of_request())
        self.settings.update(lambda known: _changed_master(known, changed))
        return jsonify(status="success", message="Master configuration updated.")

    def _document(self) -> dict[str, Any]:
        kept = self.settings.get()
        return config_document(self.machines.workers(), kept.get("settings", {}), kept.get("master", {}))

    def _update_worker(self, worker_id: str, body: Body) -> str:
        """Changes a worker, or adds one. Returns its id. Raises: Missing, InvalidRequest."""
        directory = self.machines.instances.directory
        try:
            worker = self.machines.worker(worker_id)
        except Missing:
            if not is_new_worker(body):
                raise Missing(
                    f"Worker {worker_id[:100]} not found and missing required fields for creation"
                ) from None
            return directory.add(new_fields(body), wanted_id=worker_id).id
        if changed := changed_fields(body):
            directory.change(worker.id, changed)
        return worker.id

    def _replace_workers(self, workers: list[Any]) -> None:
        """Changes and adds the given workers, and removes the others."""
        if not all(isinstance(each, dict) and each.get("id") is not None for each in workers):
            raise InvalidRequest("workers: expected a list of objects with an id")
        kept = {self._update_worker(str(each["id"]), each) for each in workers}
        for worker in self.machines.workers():
            if worker.id not in kept:
                self.machines.instances.directory.remove(worker.id)


def _replaced(parts: Body, settings: Body, known: Body) -> Body:
    """Returns the settings and the master of a whole configuration, where it has them."""
    kept = {"settings": {}, "master": {}, **known, **parts}
    return {"settings": {**kept["settings"], **settings}, "master": read_master(kept["master"])}


def _changed_settings(known: Body, changed: Body) -> Body:
    return {**known, "settings": {**known.get("settings", {}), **changed}}


def _changed_master(known: Body, changed: Body) -> Body:
    master = {**known.get("master", {}), **changed}
    return {**known, "master": {name: value for name, value in master.items() if value is not None}}


OPERATIONS = (
    Operation(
        method="GET",
        rule="/config",
        view=ConfigViews.config,
        summary="Get the workers and the settings",
        description="The workers are the instances of this server without the master.",
        answer=schemas.ConfigResponse,
    ),
    Operation(
        method="POST",
        rule="/config",
        view=ConfigViews.change_config,
        summary="Change the workers and the settings",
        description="`workers` replaces the list: instances that are not in it are removed. Errors: 400 with "
        "one message for each wrong field.",
        body=schemas.ConfigBody,
        answer=schemas.ConfigChanged,
    ),
    Operation(
        method="POST",
        rule="/config/update_worker",
        view=ConfigViews.update_worker,
        summary="Change a worker, or add one",
        description="Errors: 400 invalid field, 404 unknown worker and not enough fields for a new one.",
        body=schemas.WorkerBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/config/delete_worker",
        view=ConfigViews.delete_worker,
        summary="Remove a worker",
        description="Removes the instance from the registry. Errors: 404 unknown worker.",
        body=schemas.WorkerIdBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/config/update_setting",
        view=ConfigViews.update_setting,
        summary="Change a setting",
        description="`master_delegate_only` is the default of `delegate_master`; the other settings are only "
        "kept.",
        body=schemas.SettingBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/config/update_master",
        view=ConfigViews.update_master,
        summary="Change the fields of the master",
        description="They are kept and shown. The master itself is chosen by "
        "`COMFYUI_WORKFLOW_DISTRIBUTED_MASTER`, or by the local port.",
        body=schemas.MasterBody,
        answer=schemas.Success,
    ),
)
