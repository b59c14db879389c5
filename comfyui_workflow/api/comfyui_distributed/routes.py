"""The API of ComfyUI-Distributed, below /distributed, at the port of the server and at every local port.

How it works: the workers are the named instances of this server. The master is the instance whose local port
got the request; at the port of the server it is that of `COMFYUI_WORKFLOW_DISTRIBUTED_MASTER`, else the first
instance. Every route is also below /api/distributed, as in ComfyUI.
"""

from dataclasses import replace

from flask import Blueprint

from comfyui_workflow.api.comfyui_distributed import (
    config_routes,
    job_routes,
    machine_routes,
    queue_routes,
    schemas,
)
from comfyui_workflow.api.comfyui_distributed.config_routes import ConfigViews
from comfyui_workflow.api.comfyui_distributed.errors import error_response, http_error_response
from comfyui_workflow.api.comfyui_distributed.job_routes import JobViews
from comfyui_workflow.api.comfyui_distributed.machine_routes import MachineViews
from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.api.comfyui_distributed.queue_routes import QueueViews
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.run_requests import order_reader

PREFIX, API_PREFIX = "/distributed", "/api/distributed"


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("comfyui_distributed", __name__)
    machines = Machines(instances=services.instances, configured_master=services.settings.distributed_master)
    configs = ConfigViews(machines=machines, settings=services.distributed_settings)
    queue = QueueViews(
        machines=machines,
        settings=services.distributed_settings,
        distributed=services.distributed,
        orders=order_reader(services),
    )
    register(routes, QUEUE_OPERATIONS, queue)
    register(routes, CONFIG_OPERATIONS, configs)
    register(routes, JOB_OPERATIONS, JobViews())
    register(routes, MACHINE_OPERATIONS, MachineViews(machines=machines))
    return routes


def _at_both_prefixes(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    return tuple(
        replace(each, rule=f"{PREFIX}{each.rule}", other_rules=(f"{API_PREFIX}{each.rule}",))
        for each in operations
    )


QUEUE_OPERATIONS = _at_both_prefixes(queue_routes.OPERATIONS)
CONFIG_OPERATIONS = _at_both_prefixes(config_routes.OPERATIONS)
JOB_OPERATIONS = _at_both_prefixes(job_routes.OPERATIONS)
MACHINE_OPERATIONS = _at_both_prefixes(machine_routes.OPERATIONS)
API = Api(
    prefix=PREFIX,
    other_prefixes=(API_PREFIX,),
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag="Distributed",
        description="One graph on several machines, compatible with ComfyUI-Distributed. Details: "
        "docs/api/comfyui-distributed.md",
        operations=(*QUEUE_OPERATIONS, *CONFIG_OPERATIONS, *JOB_OPERATIONS, *MACHINE_OPERATIONS),
        failure=schemas.DistributedFailure,
        path_parameters={"worker_id": "Id of the worker", "job_id": "Id of the job"},
    ),
)
