"""What an index of finished runs needs of each, read from a line of the list without decoding all of it."""

import sys
from dataclasses import dataclass

import msgspec

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.summary import RunSummary


class SummaryKeys(msgspec.Struct, frozen=True, gc=False, rename={"run_id": "workflow_id"}):
    """Fields of a `RunSummary`, under the same names."""

    run_id: str
    workflow_name: str
    ssh_connection: str
    status: str
    instance_id: str | None = None
    instance_name: str | None = None
    batch_id: str | None = None
    graph_signature: str | None = None
    prompt_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SummaryLine:
    """A line of the list: its JSON, and what the index needs of it."""

    line: bytes
    keys: SummaryKeys


_decoder = msgspec.json.Decoder(SummaryKeys)


def keys_of_line(line: bytes) -> SummaryKeys:
    """Raises: StoreError."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"not the summary of a run: {error}") from error


def keys_of(summary: RunSummary) -> SummaryKeys:
    return SummaryKeys(**{name: getattr(summary, name) for name in SummaryKeys.__struct_fields__})


def words_of_place(keys: SummaryKeys) -> set[str]:
    """How a filter may call the instance of the run: see `RunFilter`."""
    given = (keys.instance_id, keys.instance_name or keys.ssh_connection)
    return {sys.intern(each.casefold()) for each in given if each is not None}
