"""Parses the body of a request into a run or a batch of runs."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.api.request import (
    flag,
    integer,
    is_valid_unicode,
    refuse_unknown_fields,
    remote_dir,
    text,
)
from comfyui_workflow.api.webhook_field import read_webhook
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.parsing.json_text import json_digest
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.runs.batch import BatchOrder, OnError, check_size, expand_rows
from comfyui_workflow.runs.credentials import RequestSecrets, read_credentials, without_secrets
from comfyui_workflow.runs.image_conversion import ImageConversion, InvalidConversion, read_conversion
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.notification import RUN_EVENTS, NotifiedEvent, WebhookOrder
from comfyui_workflow.runs.parts import MOST_PARTS, Partial, PartsOrder
from comfyui_workflow.runs.target import Address, InstanceId, Target, read_address, read_any, tag_of
from comfyui_workflow.runs.upload_target import InputDownload, ReadUpload, UploadKind, read_upload
from comfyui_workflow.scheduling.capacity import InstanceStates, Registry
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.settings import Settings
from comfyui_workflow.ssh import defaults
from comfyui_workflow.workflows.graph import check_json
from comfyui_workflow.workflows.input_files import InputFiles, texts_of
from comfyui_workflow.workflows.input_formats import GivenWorkflow, read_given
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import refuse_repeated, with_inputs
from comfyui_workflow.workflows.resolve import preliminary_graph
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.validation.files import texts_in

MOST_RUNS = 10_000
"""Maximum number of runs in a batch."""
HIGHEST_PRIORITY = 1000
LONGEST_STAGGER_S = 86_400
LONGEST_API_KEY = 1024
RUN_FIELDS = frozenset(
    {
        "comfy_org_api_key",
        "comfyui_input_dir",
        "comfyui_output_dir",
        "comfyui_port",
        "convert",
        "credentials",
        "include_previews",
        "input_images",
        "inputs",
        "output_dir",
        "partial",
        "priority",
        "provision",
        "seed_mode",
        "spread",
        "spread_over",
        "ssh_connection",
        "upload",
        "webhook",
        "workflow",
        "workflow_file",
        "workflow_name",
    }
)
"""Fields of the body of `execute`, without `again`, which the routes resolve before this module sees the
body."""
BATCH_FIELDS = frozenset({"batch_name", "matrix", "on_error", "rows", "runs", "stagger_s"})


def order_reader(services: ApiServices, *, may_lack_instances: bool = False) -> "OrderReader":
    instances = services.instances
    return OrderReader(
        files=services.files,
        uploads=services.uploads,
        urls=services.urls,
        directory=instances.directory,
        states=instances.monitors,
        settings=services.settings,
        check_url=services.outbox.check,
        may_lack_instances=may_lack_instances,
    )


@dataclass(frozen=True, kw_only=True)
class OrderReader:
    """Parses request bodies. Every method raises InvalidRequest, which names the field."""

    files: PathPolicy
    uploads: Uploads
    urls: UrlInputs
    directory: Registry
    states: InstanceStates
    settings: Settings
    check_url: Callable[[str], None]
    """Raises UrlRefused for a URL that a client may not name; it sends no request."""
    may_lack_instances: bool = False
    """Accepts `any` while the list of instances is empty: the run waits for the first one."""

    def read(self, body: dict[str, Any]) -> RunRequest:
        """Parses the body of `execute`, with the defaults of the specification."""
        return self.read_with_key(body)[0]

    def read_with_key(self, body: dict[str, Any]) -> tuple[RunRequest, str | None]:
        """Parses the body of `execute`. Returns the request, and the API key of Comfy.org, if there is one:
        that of the body, else the one that was saved around its workflow."""
        request, api_key = self._read_run(body, self._workflows())
        self._refuse_without_instance([request])
        return request, api_key

    def read_without_workflow(self, body: dict[str, Any]) -> RunRequest:
        """Parses such a body, without a workflow, for a run that cannot be executed."""
        return self._read(body, _NoWorkflow(self.files, self.urls))[0]

    def read_workflow(self, body: dict[str, Any]) -> Workflow:
        """Parses only the workflow of such a body."""
        return self._workflows().read(body)[1].workflow

    def output_dir(self, given: str | None = None) -> str:
        """Returns the given directory, or the default one, if it may be written. Raises: FileRefused."""
        return self.files.output_dir(given or str(self.settings.default_output_dir))

    def _workflows(self) -> "_Workflows":
        return _Workflows(self.files, self.urls)

    def _read_run(self, body: dict[str, Any], workflows: "_Workflows") -> tuple[RunRequest, str | None]:
        """Parses the body of one run with its webhook."""
        request, api_key = self._read(body, workflows)
        _refuse_ambiguous_names(request)
        return replace(request, webhook=self._webhook(body, RUN_EVENTS, RUN_EVENTS)), api_key

    def _read(self, body: dict[str, Any], workflows: "_Workflows") -> tuple[RunRequest, str | None]:
        if not body:
            raise InvalidRequest("Request body is required")
        ssh_connection = text(body, "ssh_connection")
        if not ssh_connection:
            raise InvalidRequest("ssh_connection is required")
        workflow_file, (workflow, key_in_workflow) = workflows.read(body)
        api_key = _checked_key(text(body, "comfy_org_api_key") or key_in_workflow)
        images, downloads = self._images(body)
        upload = _upload(body)
        secrets = _secrets(body, upload, downloads)
        self.urls.check(upload.target, secrets)
        inputs = _with_local_paths(_inputs(body, workflow), body, downloads)
        target = self._target(ssh_connection)
        default_name = Path(workflow_file.partition("?")[0]).name if workflow_file else "workflow"
        request = RunRequest(
            target=target,
            workflow_file=workflow_file,
            workflow=workflow,
            inputs=inputs,
            seed_mode=_seed_mode(body),
            workflow_name=text(body, "workflow_name") or default_name,
            input_images=images,
            downloads=downloads,
            upload=upload.target,
            secrets=secrets,
            output_dir=self.output_dir(text(body, "output_dir")),
            comfyui_port=integer(body, "comfyui_port", default_comfyui_port(target), 1, 65535),
            comfyui_input_dir=remote_dir(body, "comfyui_input_dir", defaults.INPUT_DIR),
            comfyui_output_dir=remote_dir(body, "comfyui_output_dir", defaults.OUTPUT_DIR),
            include_previews=flag(body, "include_previews"),
            convert=_conversion(body),
            provision=flag(body, "provision"),
            priority=read_priority(body),
            has_comfy_org_api_key=api_key is not None,
            parts=self._parts(body, target),
        )
        return request, api_key

    def _parts(self, body: dict[str, Any], target: Target) -> PartsOrder | None:
        """Parses `spread`, `spread_over` and `partial`."""
        count = integer(body, "spread", 1, 1, MOST_PARTS)
        names = _texts(body, "spread_over", "names of instances")
        policy = _partial(body)
        if count == 1:
            given = next((name for name in ("spread_over", "partial") if body.get(name) is not None), None)
            if given is not None:
                raise InvalidRequest(f"{given} needs spread: the number of parts, at least 2")
            return None
        if names and tag_of(target) is None:
            raise InvalidRequest("spread_over needs a run for any: ssh_connection names one machine already")
        return PartsOrder(count=count, partial=policy, among=tuple(self._instance_ids(names)))

    def _instance_ids(self, names: Sequence[str]) -> Iterator[str]:
        for name in dict.fromkeys(names):
            instance = self.directory.get(name)
            if instance is None:
                raise InvalidRequest(f'spread_over: no instance is called "{shown(name)}"')
            yield instance.id

    def _images(self, body: dict[str, Any]) -> tuple[tuple[str, ...], tuple[InputDownload, ...]]:
        """Returns the local paths of all inputs, and the downloads of those that are given by URL."""
        images, downloads = list[str](), list[InputDownload]()
        for each in dict.fromkeys(_texts(body, "input_images", "file paths or URLs")):
            if is_storage_url(each):
                downloads.append(self.urls.plan(each))
                images.append(downloads[-1].path)
            else:
                images.append(self.files.input_image(each))
                self.uploads.used(Path(images[-1]))
        return tuple(dict.fromkeys(images)), tuple(downloads)

    def _webhook(
        self, body: dict[str, Any], allowed: Sequence[NotifiedEvent], default: Sequence[NotifiedEvent]
    ) -> WebhookOrder | None:
        return read_webhook(
            body, allowed, default, check_url=self.check_url, server_url=self.settings.server_url
        )

    def _target(self, ssh_connection: str) -> Target:
        """Returns the named instance, `any` or an address. A name has precedence: a single word could be a
        host too."""
        instance = self.directory.get(ssh_connection)
        if instance is not None:
            return InstanceId(text=ssh_connection, instance_id=instance.id)
        return read_any(ssh_connection) or self._address(ssh_connection)

    def _refuse_without_instance(self, requests: Iterable[RunRequest]) -> None:
        """Refuses `any` without an instance, and a tag that no instance has: the run would wait in vain.
        Disabled instances count, because they can be enabled while it waits."""
        wanted = {tag_of(request.target) for request in requests} - {None}
        if not wanted or self.may_lack_instances:
            return
        known = self.directory.all()
        if not known:
            raise InvalidRequest(f"There are no instances to choose from: {_ADD_INSTANCE}")
        tags = {tag.lower(): tag for instance in known for tag in instance.tags}
        missing = min((tag for tag in wanted if tag and tag not in tags), default=None)
        if missing is not None:
            offered = f"the tags are {', '.join(sorted(tags.values()))}" if tags else "no instance has a tag"
            raise InvalidRequest(f'No instance has the tag "{shown(missing)}": {offered}. {_ADD_TAG}')

    def _address(self, ssh_connection: str) -> Address:
        """Refuses a single word if there are named instances: it is more likely a mistyped name than a
        host."""
        names = [each.name for each in self.directory.all()]
        if names and re.fullmatch(r"[\w-]+", ssh_connection):
            raise InvalidRequest(
                f'No instance is called "{ssh_connection}": there are {", ".join(names)}. '
                f"If it is a host, write: ssh {ssh_connection}"
            )
        return read_address(ssh_connection)

    def read_with_instance(self, body: dict[str, Any]) -> tuple[RunRequest, Instance | None]:
        """Parses the body of `execute` for a request that contacts the instance at once. Returns the run with
        the ssh string in place of the name, and the instance. For `any` this is the first enabled instance
        that is ready, else the first enabled one; for an ssh string, None."""
        return self._with_instance(self.read(body))

    def instance_of(self, target: str) -> tuple[RunRequest, Instance | None]:
        """Returns the same for a target alone. The request has no workflow."""
        return self._with_instance(self.read_without_workflow({"ssh_connection": target}))

    def _with_instance(self, request: RunRequest) -> tuple[RunRequest, Instance | None]:
        tag = tag_of(request.target)
        if tag is None:
            instance = self.directory.get(request.instance_id) if request.instance_id else None
        else:
            candidates = [each for each in self.directory.all() if each.is_eligible_for(tag)]
            if not candidates:
                raise InvalidRequest(
                    "No such instance is enabled: comfyui-workflow instances edit NAME --enabled"
                )
            instance = next(
                (each for each in candidates if self.states.state(each.id).is_ready), candidates[0]
            )
        return (_with_address_of(request, instance) if instance else request), instance

    def read_batch(self, body: dict[str, Any]) -> BatchOrder:
        """Parses a batch: a list of bodies in `runs`, or one body with the `rows` or the `matrix` of its
        inputs."""
        if not body:
            raise InvalidRequest("Request body is required")
        _check_batch_fields(body)
        webhook = self._webhook(body, tuple(NotifiedEvent), (NotifiedEvent.BATCH_COMPLETED,))
        of_runs = None if webhook is None else webhook.limited_to(RUN_EVENTS)
        with_keys = list(self._requests(body))
        if not with_keys:
            raise InvalidRequest("The batch has no runs in it")
        requests, api_keys = zip(*with_keys, strict=True)
        check_size(sum(each.parts.count if each.parts else 1 for each in requests), MOST_RUNS)
        order = BatchOrder(
            requests=tuple(replace(each, webhook=each.webhook or of_runs) for each in requests),
            webhook=None if webhook is None else webhook.limited_to((NotifiedEvent.BATCH_COMPLETED,)),
            comfy_org_api_keys=api_keys,
            name=text(body, "batch_name") or requests[0].workflow_name,
            stagger_s=_stagger_s(body),
            on_error=_on_error(body),
        )
        self._refuse_without_instance(requests)
        return order

    def _requests(self, body: dict[str, Any]) -> Iterator[tuple[RunRequest, str | None]]:
        runs = body.get("runs")
        if runs is None:
            yield from self._expanded_requests(body)
            return
        if "matrix" in body or "rows" in body:
            raise InvalidRequest("Give runs, or matrix, or rows: one of them")
        if not isinstance(runs, list) or not all(isinstance(each, dict) for each in runs):
            raise InvalidRequest("runs must be a list of objects, each as for execute")
        check_size(len(runs), MOST_RUNS)
        workflows = self._workflows()
        for number, each in enumerate(runs):
            try:
                refuse_unknown_fields(each, RUN_FIELDS, "a run")
                yield self._read_run(each, workflows)
            except InvalidRequest as error:
                raise InvalidRequest(f"runs[{number}]: {error}") from error

    def _expanded_requests(self, body: dict[str, Any]) -> Iterator[tuple[RunRequest, str | None]]:
        check_json({name: body.get(name) for name in ("matrix", "rows")})
        rows = expand_rows(body.get("matrix"), body.get("rows"), MOST_RUNS)
        request, api_key = self._read(body, self._workflows())
        rows = [_with_paths(row, body, request) for row in rows]
        files = InputFiles(request.input_images)
        named = [_files_of_row(request.workflow, files, number, row) for number, row in enumerate(rows)]
        named_by_rows = frozenset[str]().union(*named)
        for number, row in enumerate(rows):
            images = [each for each in files.paths if each in named[number] or each not in named_by_rows]
            run = replace(
                request,
                inputs={**request.inputs, **row},
                input_images=tuple(images),
                downloads=tuple(each for each in request.downloads if each.path in images),
            )
            with _naming_the_run(number):
                _refuse_ambiguous_names(run)
            yield run, api_key


def _files_of_row(workflow: Workflow, files: InputFiles, number: int, row: dict[str, Any]) -> frozenset[str]:
    """Checks the names of the inputs. Returns the input files that the row names. Raises: InvalidRequest."""
    with _naming_the_run(number):
        refuse_repeated(workflow.outline, row)
        with_inputs(workflow.outline, row, Definitions({}))
        return frozenset(each.path for each in files.references(texts_in(row)).values())


@contextmanager
def _naming_the_run(number: int) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"run {number}: {error}") from error


def _refuse_ambiguous_names(request: RunRequest) -> None:
    """Raises: InvalidRequest if a text of the workflow names two input files."""
    if request.input_images:
        InputFiles(request.input_images).references(texts_of(preliminary_graph(request)))


_ADD_INSTANCE = (
    'add one with comfyui-workflow instances add NAME --ssh "…", on the page under Instances, or with '
    "POST /comfyui/instances"
)
_ADD_TAG = "Give it to one: comfyui-workflow instances edit NAME --tag WORD"


def _checked_key(key: str | None) -> str | None:
    """Checks the Comfy.org API key. ComfyUI sends it as a header to Comfy.org, so it must be fit for that.
    The error message does not contain it."""
    if key is not None and (len(key) > LONGEST_API_KEY or not re.fullmatch("[!-~]+", key)):
        raise InvalidRequest(
            f"comfy_org_api_key must be at most {LONGEST_API_KEY} letters, digits and signs, without spaces"
        )
    return key


def read_priority(body: dict[str, Any]) -> int:
    return integer(body, "priority", 0, -HIGHEST_PRIORITY, HIGHEST_PRIORITY)


def default_comfyui_port(target: Target) -> int:
    """Returns the default of `comfyui_port`: the port of `-L` in the ssh string, else ComfyUI's usual one."""
    given = target.ssh.comfyui_port if isinstance(target, Address) else None
    return given or defaults.COMFYUI_PORT


def _with_address_of(request: RunRequest, instance: Instance) -> RunRequest:
    return replace(
        request,
        target=Address(text=instance.ssh_connection, ssh=instance.address),
        comfyui_port=instance.comfyui_port,
        comfyui_input_dir=instance.comfyui_input_dir,
        comfyui_output_dir=instance.comfyui_output_dir,
    )


def _check_batch_fields(body: dict[str, Any]) -> None:
    refuse_unknown_fields(body, BATCH_FIELDS | RUN_FIELDS, "a batch")
    conflicting = sorted((RUN_FIELDS - {"webhook"}) & body.keys()) if body.get("runs") is not None else []
    if conflicting:
        raise InvalidRequest(f"{conflicting[0]} cannot be combined with runs: each run has its own")


def _stagger_s(body: dict[str, Any]) -> float:
    value = body.get("stagger_s", 0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LONGEST_STAGGER_S:
        raise InvalidRequest(f"stagger_s must be a number of seconds from 0 to {LONGEST_STAGGER_S}")
    return float(value)


def _partial(body: dict[str, Any]) -> Partial:
    value = text(body, "partial") or Partial.MOVE.value
    try:
        return Partial(value)
    except ValueError as error:
        raise InvalidRequest(f"partial must be one of {', '.join(Partial)}") from error


def _on_error(body: dict[str, Any]) -> OnError:
    value = text(body, "on_error") or OnError.CONTINUE.value
    try:
        return OnError(value)
    except ValueError as error:
        raise InvalidRequest(f"on_error must be one of {', '.join(OnError)}") from error


class _Workflows:
    """Reads the workflows of one request. A file that many runs of a batch name is read once, and equal
    workflows become one object, which is stored once."""

    def __init__(self, files: PathPolicy, urls: UrlInputs) -> None:
        self._files = files
        self._urls = urls
        self._by_path: dict[str, GivenWorkflow] = {}
        self._by_hash: dict[bytes, GivenWorkflow] = {}

    def read(self, body: dict[str, Any]) -> tuple[str | None, GivenWorkflow]:
        """Returns the path as given (None for an inline workflow) and the workflow, which may have either
        format."""
        workflow_file = text(body, "workflow_file")
        inline = body.get("workflow")
        if workflow_file and inline is not None:
            raise InvalidRequest("Give workflow_file or workflow, not both")
        if inline is not None:
            return None, self._deduplicated(inline)
        if not workflow_file:
            raise InvalidRequest("workflow_file is required")
        if is_storage_url(workflow_file):
            if workflow_file not in self._by_path:
                secrets = _secrets(body)
                self._by_path[workflow_file] = self._urls.read_workflow(workflow_file, secrets)
            return without_secrets(workflow_file), self._by_path[workflow_file]
        if workflow_file not in self._by_path:
            self._by_path[workflow_file] = self._files.read_workflow(workflow_file)
        return workflow_file, self._by_path[workflow_file]

    def _deduplicated(self, inline: Any) -> GivenWorkflow:
        try:
            digest = json_digest(inline)
        except RecursionError:
            return read_given(inline)  # it raises the error for too deep nesting
        if digest not in self._by_hash:
            self._by_hash[digest] = read_given(inline)
        return self._by_hash[digest]


class _NoWorkflow(_Workflows):
    def read(self, body: dict[str, Any]) -> tuple[str | None, GivenWorkflow]:
        return None, GivenWorkflow(Workflow(graph={}))


def _inputs(body: dict[str, Any], workflow: Workflow) -> dict[str, Any]:
    """Parses `inputs`. Refuses names that the workflow does not have; values are checked later, against the
    node definitions of the instance."""
    inputs = body.get("inputs")
    if inputs is None:
        return {}
    if not isinstance(inputs, dict):
        raise InvalidRequest('inputs must be an object: {"<node id or title>.<input>": value}')
    check_json(inputs)
    with_inputs(workflow.outline, inputs, Definitions({}))
    return inputs


def _conversion(body: dict[str, Any]) -> ImageConversion | None:
    given = body.get("convert")
    try:
        return None if given is None else read_conversion(given)
    except InvalidConversion as error:
        raise InvalidRequest(f"convert{'.' if error.location else ' '}{error}") from error


def _seed_mode(body: dict[str, Any]) -> SeedMode:
    mode = text(body, "seed_mode") or SeedMode.SAVED.value
    try:
        return SeedMode(mode)
    except ValueError as error:
        raise InvalidRequest(f"seed_mode must be one of {', '.join(SeedMode)}") from error


def _texts(body: dict[str, Any], name: str, what: str) -> list[str]:
    values = body.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(
        isinstance(value, str) and is_valid_unicode(value) for value in values
    ):
        raise InvalidRequest(f"{name} must be a list of {what}")
    return values


def _upload(body: dict[str, Any]) -> ReadUpload:
    upload = read_upload(body.get("upload"))
    if upload.target is None and body.get("upload") is not None:
        raise InvalidRequest(f"upload must be a URL, or an object with one of {', '.join(UploadKind)}")
    return upload


def _secrets(
    body: dict[str, Any], upload: ReadUpload | None = None, downloads: tuple[InputDownload, ...] = ()
) -> RequestSecrets:
    """Returns what must not be in a record: `credentials`, and the URLs that are secrets."""
    urls = _urls_of(body, downloads).items()
    inputs = {each.path: url for url, each in urls if each.url != url}
    return RequestSecrets(
        credentials=read_credentials(body.get("credentials")),
        urls={**inputs, **(upload.urls if upload else {})},
    )


def _urls_of(body: dict[str, Any], downloads: tuple[InputDownload, ...]) -> dict[str, InputDownload]:
    """Returns the downloads by their complete URLs in `input_images`."""
    images = dict.fromkeys(_texts(body, "input_images", "file paths or URLs"))
    return dict(zip((each for each in images if is_storage_url(each)), downloads, strict=False))


def _with_local_paths(
    inputs: dict[str, Any], body: dict[str, Any], downloads: tuple[InputDownload, ...]
) -> dict[str, Any]:
    """Replaces values that are URLs of `input_images` by the local paths of these files."""
    paths = {url: each.path for url, each in _urls_of(body, downloads).items()}
    return {
        name: paths.get(value, value) if isinstance(value, str) else value for name, value in inputs.items()
    }


def _with_paths(row: dict[str, Any], body: dict[str, Any], request: RunRequest) -> dict[str, Any]:
    return _with_local_paths(row, body, request.downloads)
