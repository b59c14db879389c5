"""Fields of a finished run's summary that the index keeps in memory, decoded without the rest of the
summary."""

import sys
from datetime import datetime

import msgspec

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import Stay, seconds_here
from comfyui_workflow.runs.summary import RunSummary, stay_here


class SummaryKeys(msgspec.Struct, gc=False, rename={"run_id": "workflow_id"}):
    """Fields of a `RunSummary`, under the same names. Equal strings of several runs are one object.
    `FinishedRuns` knows the order of the fields."""

    run_id: str
    workflow_name: str
    ssh_connection: str
    status: str
    instance_id: str | None = None
    instance_name: str | None = None
    batch_id: str | None = None
    graph_signature: str | None = None
    prompt_s: float | None = None
    price_per_hour: float | None = None
    gpu_s: float = 0.0
    stays: tuple[Stay, ...] = ()
    start_time: datetime | None = None
    """None if `gpu_s` is not 0, which already shows that the run has begun."""
    end_time: datetime | None = None
    parent_id: str | None = None

    def __post_init__(self) -> None:
        self.workflow_name = sys.intern(self.workflow_name)
        self.ssh_connection = sys.intern(self.ssh_connection)
        self.status = sys.intern(str(self.status))
        self.instance_id = _interned(self.instance_id)
        self.instance_name = _interned(self.instance_name)
        self.batch_id = _interned(self.batch_id)
        self.graph_signature = _interned(self.graph_signature)
        self.parent_id = _interned(self.parent_id)
        self.prompt_s = self.gpu_s if self.prompt_s == self.gpu_s else self.prompt_s
        self.start_time = None if self.gpu_s else self.start_time

    def all_stays(self, _at: datetime) -> tuple[Stay, ...]:
        """Returns the same as `RunSummary.all_stays`."""
        gpu_s, has_begun = seconds_here(self.gpu_s, self.stays), self.start_time is not None or self.gpu_s > 0
        return (*self.stays, *stay_here(self.instance_id, gpu_s, self.price_per_hour, has_begun=has_begun))


_decoder = msgspec.json.Decoder(SummaryKeys)


def decode_keys(summary: bytes) -> SummaryKeys:
    """`summary` is JSON. Raises: StoreError."""
    try:
        return _decoder.decode(summary)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"not the summary of a run: {error}") from error


def keys_of(summary: RunSummary) -> SummaryKeys:
    return SummaryKeys(**{name: getattr(summary, name) for name in SummaryKeys.__struct_fields__})


def instance_words(keys: SummaryKeys) -> set[str]:
    """Returns the id and the name of the run's instance, in lower case, as in a `RunFilter`."""
    given = (keys.instance_id, keys.instance_name or keys.ssh_connection)
    return {sys.intern(each.casefold()) for each in given if each is not None}


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)
