"""/distributed: the machines of the master and the workers: logs, memory, files, platform."""

import hashlib
import mimetypes
from base64 import b64encode
from dataclasses import dataclass
from functools import partial

from flask import Response, jsonify, request

from comfyui_workflow.api.comfyui_distributed import machine, schemas
from comfyui_workflow.api.comfyui_distributed.bodies import body_of_request, required_worker_id
from comfyui_workflow.api.comfyui_distributed.configuration import NO_TUNNEL
from comfyui_workflow.api.comfyui_distributed.errors import Missing
from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.api.operations import Operation
from comfyui_workflow.errors import InvalidRequest, RemoteFileError, RemoteFileMissing
from comfyui_workflow.instances.model import Instance

MOST_LOG_LINES = 3000
LARGEST_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class MachineViews:
    machines: Machines

    def local_log(self) -> Response:
        lines = _lines()
        return self._log_of(self.machines.master(), lines)

    def remote_worker_log(self, worker_id: str) -> Response:
        lines = _lines()
        return self._log_of(self.machines.worker(worker_id.strip()), lines)

    def worker_log(self, worker_id: str) -> Response:
        raise Missing(f"Worker {worker_id[:100]} not managed by UI")

    def clear_memory(self) -> Response:
        master = self.machines.master()
        self.machines.ask(master, lambda session: session.client.free(unload_models=True, free_memory=True))
        self.machines.instances.monitors.mark_memory_freed(master.id)
        return jsonify(status="success", message="GPU memory cleared.")

    def system_info(self) -> Response:
        return jsonify(machine.system_info(self.machines.ask(self.machines.master(), machine.read_system)))

    def network_info(self) -> Response:
        return jsonify(machine.network_info(self.machines.ask(self.machines.master(), machine.read_system)))

    def load_image(self) -> Response:
        name = body_of_request().get("image_path")
        if not name:
            raise InvalidRequest("Missing image_path")
        content = self._file(str(name))
        if content is None:
            raise Missing(f"File not found: {str(name)[:200]}")
        kind = mimetypes.guess_type(str(name).partition(" [")[0])[0] or "image/png"
        data = f"data:{kind};base64,{b64encode(content).decode()}"
        return jsonify(status="success", image_data=data, hash=_md5(content))

    def check_file(self) -> Response:
        body = body_of_request()
        name, expected = body.get("filename"), body.get("hash")
        if not name or not expected:
            raise InvalidRequest("Missing filename or hash")
        content = self._file(str(name))
        if content is None:
            return jsonify(status="success", exists=False)
        return jsonify(status="success", exists=True, hash_matches=_md5(content) == expected)

    def managed_workers(self) -> Response:
        return jsonify(status="success", managed_workers={})

    def local_worker_status(self) -> Response:
        monitors = self.machines.instances.monitors
        local = [each for each in self.machines.workers() if each.local_port is not None]
        statuses = {each.id: machine.worker_status(each, monitors.state(each.id)) for each in local}
        return jsonify(status="success", worker_statuses=statuses)

    def launch_worker(self) -> Response:
        """A disabled worker is not started: nothing can start a rented machine from here."""
        worker = self.machines.worker(required_worker_id())
        raise InvalidRequest(
            f"Failed to launch worker: {worker.name} is a machine that this server reaches over SSH; start "
            "its ComfyUI there"
        )

    def stop_worker(self) -> Response:
        self.machines.worker(required_worker_id())
        raise Missing("Worker not managed by UI")

    def clear_launching(self) -> Response:
        self.machines.worker(required_worker_id())
        return jsonify(status="success")

    def tunnel_status(self) -> Response:
        return jsonify(
            status="success", tunnel=dict(NO_TUNNEL), master_host=self.machines.master().address.host
        )

    def start_tunnel(self) -> Response:
        raise InvalidRequest("No tunnel is needed: this server reaches every worker over SSH")

    def stop_tunnel(self) -> Response:
        return self.tunnel_status()

    def _log_of(self, instance: Instance, most_lines: int) -> Response:
        lines = self.machines.ask(instance, lambda session: session.client.log()).splitlines(keepends=True)
        shown = lines[-most_lines:]
        content = "".join(shown)
        return jsonify(
            status="success",
            content=content,
            entries=len(shown),
            source="memory",
            truncated=len(lines) > len(shown),
            lines_shown=content.count("\n") + bool(content),
        )

    def _file(self, name: str) -> bytes | None:
        """Returns a file of the master; None if there is none. Raises: InvalidRequest, ComfyUIError."""
        place = machine.file_place(name)
        try:
            return self.machines.ask(
                self.machines.master(), partial(machine.read_file, place, LARGEST_FILE_BYTES)
            )
        except RemoteFileMissing:
            return None
        except RemoteFileError as error:
            raise InvalidRequest(str(error)) from error


def _lines() -> int:
    given = request.args.get("lines", "300")
    return min(MOST_LOG_LINES, max(1, int(given))) if given.isdecimal() and len(given) < 9 else 300


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


OPERATIONS = (
    Operation(
        method="GET",
        rule="/local_log",
        view=MachineViews.local_log,
        summary="Get the log of the master",
        query=schemas.LogQuery,
        answer=schemas.LogResponse,
    ),
    Operation(
        method="GET",
        rule="/remote_worker_log/<worker_id>",
        view=MachineViews.remote_worker_log,
        summary="Get the log of a worker",
        description="Errors: 404 unknown worker, 502 it cannot be reached.",
        query=schemas.LogQuery,
        answer=schemas.LogResponse,
    ),
    Operation(
        method="GET",
        rule="/worker_log/<worker_id>",
        view=MachineViews.worker_log,
        summary="Get the log of a worker process",
        description="Always 404: no worker is a process of this machine.",
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/clear_memory",
        view=MachineViews.clear_memory,
        summary="Unload the models of the master",
        answer=schemas.Success,
    ),
    Operation(
        method="GET",
        rule="/system_info",
        view=MachineViews.system_info,
        summary="Get the platform of the master",
        answer=schemas.SystemInfo,
    ),
    Operation(
        method="GET",
        rule="/network_info",
        view=MachineViews.network_info,
        summary="Get the addresses of the master",
        answer=schemas.NetworkInfo,
    ),
    Operation(
        method="POST",
        rule="/load_image",
        view=MachineViews.load_image,
        summary="Get a file of the master",
        description="Errors: 404 no such file.",
        body=schemas.ImageBody,
        answer=schemas.ImageResponse,
    ),
    Operation(
        method="POST",
        rule="/check_file",
        view=MachineViews.check_file,
        summary="Compare a file of the master",
        body=schemas.FileBody,
        answer=schemas.FileResponse,
    ),
    Operation(
        method="GET",
        rule="/managed_workers",
        view=MachineViews.managed_workers,
        summary="List the worker processes",
        description="Always empty.",
        answer=schemas.ManagedWorkers,
    ),
    Operation(
        method="GET",
        rule="/local-worker-status",
        view=MachineViews.local_worker_status,
        summary="Get the states of the workers with a local port",
        answer=schemas.LocalWorkers,
    ),
    Operation(
        method="POST",
        rule="/launch_worker",
        view=MachineViews.launch_worker,
        summary="Start a worker process",
        description="Always an error: a rented machine is not started from here.",
        body=schemas.WorkerIdBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/stop_worker",
        view=MachineViews.stop_worker,
        summary="Stop a worker process",
        description="Always 404: no worker is a process of this machine.",
        body=schemas.WorkerIdBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/worker/clear_launching",
        view=MachineViews.clear_launching,
        summary="Forget that a worker is being started",
        body=schemas.WorkerIdBody,
        answer=schemas.Success,
    ),
    Operation(
        method="GET",
        rule="/tunnel/status",
        view=MachineViews.tunnel_status,
        summary="Get the state of the tunnel",
        description="Always stopped: this server reaches every worker over SSH.",
        answer=schemas.TunnelResponse,
    ),
    Operation(
        method="POST",
        rule="/tunnel/start",
        view=MachineViews.start_tunnel,
        summary="Start a tunnel",
        description="Always an error: none is needed.",
        answer=schemas.TunnelResponse,
    ),
    Operation(
        method="POST",
        rule="/tunnel/stop",
        view=MachineViews.stop_tunnel,
        summary="Stop the tunnel",
        answer=schemas.TunnelResponse,
    ),
)
