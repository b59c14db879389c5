"""Fields of a finished run's summary that the index holds in memory, read without decoding all of it."""

import sys

import msgspec

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.summary import RunSummary


class SummaryKeys(msgspec.Struct, gc=False, rename={"run_id": "workflow_id"}):
    """Fields of a `RunSummary`, under the same names. What many runs share is one object."""

    run_id: str
    workflow_name: str
    ssh_connection: str
    status: str
    instance_id: str | None = None
    instance_name: str | None = None
    batch_id: str | None = None
    graph_signature: str | None = None
    prompt_s: float | None = None

    def __post_init__(self) -> None:
        self.workflow_name = sys.intern(self.workflow_name)
        self.ssh_connection = sys.intern(self.ssh_connection)
        self.status = sys.intern(str(self.status))
        self.instance_id = _interned(self.instance_id)
        self.instance_name = _interned(self.instance_name)
        self.batch_id = _interned(self.batch_id)
        self.graph_signature = _interned(self.graph_signature)


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
    """Id and name of the run's instance, as a filter may call it: see `RunFilter`."""
    given = (keys.instance_id, keys.instance_name or keys.ssh_connection)
    return {sys.intern(each.casefold()) for each in given if each is not None}


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)
