"""Error classes of the whole program, as one tree.

Each error has a stable `code`, and a message that a user can act on.

WorkflowError
├── InvalidRequest          the request cannot be executed as it is
│   ├── InvalidAddress      not an SSH address, or it contains a part that is not allowed
│   ├── InvalidGraph        not a workflow, or the instance cannot execute it
│   │   └── InvalidInputs   a value in it is wrong, whatever is installed on the instance
│   ├── FileRefused         a path that is missing, unreadable or outside of the allowed directories
│   │   └── KeyRefused      the same, for the file of an SSH key
│   └── UrlRefused          not a web URL, or an address to which the server must not connect
├── RunNotFound             there is no run with this id
│   └── RunFinished         a request for an unfinished run names a run that is finished
├── BatchNotFound           there is no batch with this id
├── DeliveryNotFound        there is no webhook with this id
├── JobNotFound             there is no job with this id, or its time to live has ended
├── RunConflict             the current state of the run does not allow the operation
├── InstanceNotFound        there is no named instance with this id or name
├── HostKeyConflict         the host key to be trusted differs from the key that the machine shows
├── InstancesFileBroken     the file of named instances cannot be read; it is not overwritten
├── ServerBusy              transient: too many concurrent requests; try again in a moment
├── ConfigurationError      the server cannot start with these settings
├── StoreError              transient: the local disk does not accept a record
├── RecordDamaged           the record of a run is damaged, so the run cannot continue
├── CollectedFileDamaged    a picture or sound that an instance rendered for another one is damaged
├── StorageError            a transfer from or to external storage (a bucket) failed
│   ├── StorageUnavailable  transient: the storage is not reachable, or reports a temporary error
│   ├── InputNotDownloaded  an input of a run cannot be downloaded from its URL
│   └── UploadFailed        an output of a run is on this machine, but cannot be uploaded
├── ProvisionFailed         something that a workflow needs cannot be put on the instance
│   └── ProvisionUnavailable  transient: the host of the file is not reachable, or cuts the transfer
├── Stopped                 the caller requested a stop while the operation waited; nothing failed
│   └── DataTaken           another server works on the same data; this server writes nothing more, and stops
├── WebError                the web server of a URL refused, or sent an unusable response
│   └── WebUnavailable      transient: not reachable, timed out, cut off, or it reports a temporary error
├── InstanceError           an error of the SSH connection to the instance
│   ├── ConnectionFailed    transient: refused, reset, timed out or cut off; a retry may succeed
│   │   └── RemoteFilesSilent  the connection works, but its SFTP server does not respond
│   ├── AuthenticationFailed  the key is not accepted; never retried
│   ├── HostKeyRefused      the host key differs from the known one
│   ├── ProgramFailed       the instance runs no commands over SSH, or a program on it failed
│   └── RemoteFileError     a file on the instance cannot be read or written
│       ├── RemoteFileMissing  the file does not exist
│       ├── RemoteFileExists  the file already exists; nothing was overwritten
│       ├── RemoteFileNotWritten  the instance does not write it: no permission, or a full disk
│       └── RemoteFileOverwritten  another prompt has overwritten the output
└── ComfyUIError            an error of ComfyUI on the instance
    ├── ComfyUIUnavailable  transient: not listening, still starting, or an invalid response
    │   └── UploadNotSaved  ComfyUI does not save an uploaded file
    ├── ComfyUINotFound     no port of the instance leads to ComfyUI, and waiting does not help
    ├── PromptRefused       ComfyUI does not accept the graph
    ├── ApiKeyGone          the graph needs the API key of the run, which is no longer stored
    ├── InstanceBroken      the worker of ComfyUI is dead: no prompt ends until ComfyUI is restarted
    │   └── LimitExceeded   ComfyUI sends more than this server accepts, or a response that never ends
    ├── PromptFailed        a node raised an error, or memory ran out
    └── PromptLost          the prompt is in neither the queue nor the history

This module does not depend on HTTP: each API formats these errors in its own way.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OfferedKey:
    """The host key that a machine showed instead of the known one."""

    host: str
    port: int
    known: str
    """Fingerprint of the known key."""
    fingerprint: str
    """Fingerprint of the new key."""
    key: str
    """The new key in the format of known_hosts: its type, then the key in base64."""


class WorkflowError(Exception):
    """Base class. `str(error)` is the message. `is_transient`: the same call may succeed later."""

    code = "error"
    is_transient = False


class InvalidRequest(WorkflowError):
    code = "invalid_request"


class InvalidAddress(InvalidRequest):
    code = "invalid_ssh_connection"


class InvalidGraph(InvalidRequest):
    code = "invalid_workflow"
    node_id: str | None = None
    """The node that caused the error, if it is known."""


class InvalidInputs(InvalidGraph):
    code = "invalid_inputs"


class FileRefused(InvalidRequest):
    code = "file_refused"


class KeyRefused(FileRefused):
    code = "key_refused"


class UrlRefused(InvalidRequest):
    code = "url_refused"


class RunNotFound(WorkflowError):
    code = "run_not_found"


class RunFinished(RunNotFound):
    code = "run_finished"


class BatchNotFound(WorkflowError):
    code = "batch_not_found"


class DeliveryNotFound(WorkflowError):
    code = "webhook_not_found"


class JobNotFound(WorkflowError):
    code = "job_not_found"


class RunConflict(WorkflowError):
    code = "run_conflict"


class InstanceNotFound(WorkflowError):
    code = "instance_not_found"


class InstancesFileBroken(WorkflowError):
    code = "instances_file"


class HostKeyConflict(WorkflowError):
    code = "host_key_conflict"


class ServerBusy(WorkflowError):
    code = "server_busy"
    is_transient = True


class CustomWorkflowNotFound(WorkflowError):
    code = "custom_workflow_not_found"


class CustomWorkflowBroken(WorkflowError):
    """A file of WORKFLOW_DIR cannot be used: the operator must mend it."""

    code = "custom_workflow_broken"


class ConfigurationError(WorkflowError):
    code = "configuration"


class StoreError(WorkflowError):
    code = "store"
    is_transient = True


class CollectedFileDamaged(WorkflowError):
    code = "collected_file"


class RecordDamaged(WorkflowError):
    code = "record_damaged"


class ProvisionFailed(WorkflowError):
    code = "provision_failed"


class ProvisionUnavailable(ProvisionFailed):
    is_transient = True


class StorageError(WorkflowError):
    code = "storage"


class StorageUnavailable(StorageError):
    is_transient = True


class InputNotDownloaded(StorageError):
    code = "input_not_downloaded"

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class UploadFailed(StorageError):
    code = "upload_failed"

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class Stopped(WorkflowError):
    code = "stopped"


class DataTaken(Stopped):
    code = "data_taken"


class WebError(WorkflowError):
    code = "web"


class WebUnavailable(WebError):
    code = "web_unavailable"
    is_transient = True


class InstanceError(WorkflowError):
    code = "instance"


class ConnectionFailed(InstanceError):
    code = "connection_failed"
    is_transient = True


class NothingListens(ConnectionFailed):
    """SSH works, but nothing accepts connections on ComfyUI's port of the instance: it may be starting."""


class RemoteFilesSilent(ConnectionFailed):
    """The connection works, but its SFTP server does not respond."""


class AuthenticationFailed(InstanceError):
    code = "authentication_failed"


class HostKeyRefused(InstanceError):
    code = "host_key_refused"
    offered: "OfferedKey | None" = None


class ProgramFailed(InstanceError):
    code = "program_failed"


class RemoteFileError(InstanceError):
    code = "remote_file"


class RemoteFileMissing(RemoteFileError):
    code = "remote_file_missing"


class RemoteFileExists(RemoteFileError):
    code = "remote_file_exists"


class RemoteFileNotWritten(RemoteFileError):
    """SFTP works, and the instance refuses to write the file."""


class RemoteFileReplaced(RemoteFileError):
    """Another prompt made the file that has the name. Concerns one output, like the next one."""


class RemoteFileOverwritten(RemoteFileError):
    """Concerns one output. This error alone never ends a run."""


class ComfyUIError(WorkflowError):
    code = "comfyui"
    prompt_id: str | None = None
    node_id: str | None = None
    """The prompt and the node that caused the error, if they are known."""


class ComfyUIUnavailable(ComfyUIError):
    code = "comfyui_unavailable"
    is_transient = True


class PromptCrashed(ComfyUIUnavailable):
    """ComfyUI fails with HTTP 500 when it receives the prompt. A node may raise while it is checked; a
    proxy may also answer so, and then ComfyUI may have the prompt."""

    code = "prompt_crashed"


class UploadNotSaved(ComfyUIUnavailable):
    """ComfyUI fails while it saves an uploaded file."""


class ComfyUINotFound(ComfyUIError):
    code = "comfyui_not_found"


class PromptRefused(ComfyUIError):
    code = "prompt_refused"


class ApiKeyGone(ComfyUIError):
    code = "api_key_gone"


class InstanceBroken(ComfyUIError):
    code = "instance_broken"


class LimitExceeded(InstanceBroken):
    pass


class PromptFailed(ComfyUIError):
    code = "prompt_failed"


class PromptLost(ComfyUIError):
    code = "prompt_lost"
