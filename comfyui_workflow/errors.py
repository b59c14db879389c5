"""Everything that can go wrong, as a tree. Each error is a sentence a user can act on, under a stable `code`.

WorkflowError
├── InvalidRequest          what was asked cannot be done as asked
│   ├── InvalidAddress      not an SSH address, or one with a part that is refused
│   ├── InvalidGraph        not a workflow, or one that the instance cannot run
│   ├── FileRefused         a path that is missing, unreadable or outside the allowed directories
│   │   └── KeyRefused      that of an SSH key
│   └── UrlRefused          not a URL of the web, or one that leads where the server may not go
├── RunNotFound             no run of that id
├── BatchNotFound           no batch of that id
├── DeliveryNotFound        no webhook of that id
├── JobNotFound             no job of that id, or not any more
├── RunConflict             the run is in a state that does not allow it
├── InstanceNotFound        no named instance of that id or name
├── HostKeyConflict         the host key that is to be trusted is not the one that the machine shows
├── InstancesFileBroken     the file of named instances cannot be read; it is not overwritten
├── ServerBusy              too many at once; try again in a moment
├── ConfigurationError      the server cannot start with these settings
├── StoreError              the local disk does not take what must be saved
├── RecordDamaged           the record of a run is damaged, so that it cannot go on
├── StorageError            a place outside that does not take what is brought there
├── Stopped                 the caller asked to stop while it was waiting; nothing went wrong
│   └── DataTaken           another server works on the same data; this one changes nothing more, and ends
├── WebError                the server of a URL refuses, or answers what cannot be used
│   └── WebUnavailable      transient: not reached, timed out, cut, or it says that it is in trouble
├── InstanceError           the way to the instance
│   ├── ConnectionFailed    transient: refused, reset, timed out, cut; worth another try
│   │   └── RemoteFilesSilent  the connection is there, its server of files does not answer
│   ├── AuthenticationFailed  the key is not accepted; never tried again
│   ├── HostKeyRefused      the machine is not the one we knew
│   └── RemoteFileError     a file on the instance that cannot be read or written
│       ├── RemoteFileMissing
│       ├── RemoteFileExists  nothing was overwritten
│       └── RemoteFileOverwritten  another prompt has written over it
└── ComfyUIError            the ComfyUI behind it
    ├── ComfyUIUnavailable  transient: not listening, still starting, an answer that is none
    ├── PromptRefused       it does not accept the graph
    ├── ApiKeyGone          the graph needs the API key that came with the run, which is not kept any longer
    ├── InstanceBroken      its worker is dead: what runs there never ends, until it is restarted
    │   └── LimitExceeded   it sends more than this server takes, or never comes to an end
    ├── PromptFailed        a node raised, or memory ran out
    └── PromptLost          in neither queue nor history

Nothing here knows of HTTP: each API words these in its own way.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OfferedKey:
    """The host key that a machine showed in the place of the one we knew."""

    host: str
    port: int
    known: str
    """Its fingerprint, as that of the new one."""
    fingerprint: str
    key: str
    """The new one itself, as in known hosts: its type, then the key in base64."""


class WorkflowError(Exception):
    """The root. `str(error)` is the sentence; `is_transient` says that the same call may succeed later."""

    code = "error"
    is_transient = False


class InvalidRequest(WorkflowError):
    code = "invalid_request"


class InvalidAddress(InvalidRequest):
    code = "invalid_ssh_connection"


class InvalidGraph(InvalidRequest):
    code = "invalid_workflow"
    node_id: str | None = None
    """The node at fault, where it is one."""


class FileRefused(InvalidRequest):
    code = "file_refused"


class KeyRefused(FileRefused):
    code = "key_refused"


class UrlRefused(InvalidRequest):
    code = "url_refused"


class RunNotFound(WorkflowError):
    code = "run_not_found"


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


class ConfigurationError(WorkflowError):
    code = "configuration"


class StoreError(WorkflowError):
    code = "store"
    is_transient = True


class RecordDamaged(WorkflowError):
    code = "record_damaged"


class StorageError(WorkflowError):
    code = "storage"


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


class RemoteFilesSilent(ConnectionFailed):
    """The connection is there, and the server of files on it does not answer."""


class AuthenticationFailed(InstanceError):
    code = "authentication_failed"


class HostKeyRefused(InstanceError):
    code = "host_key_refused"
    offered: "OfferedKey | None" = None


class RemoteFileError(InstanceError):
    code = "remote_file"


class RemoteFileMissing(RemoteFileError):
    code = "remote_file_missing"


class RemoteFileExists(RemoteFileError):
    code = "remote_file_exists"


class RemoteFileOverwritten(RemoteFileError):
    """Said of an output, and never the end of a run by itself."""


class ComfyUIError(WorkflowError):
    code = "comfyui"
    prompt_id: str | None = None
    node_id: str | None = None
    """The prompt and the node at fault, where that is told."""


class ComfyUIUnavailable(ComfyUIError):
    code = "comfyui_unavailable"
    is_transient = True


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
