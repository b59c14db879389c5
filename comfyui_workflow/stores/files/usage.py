"""Usage of instances in one JSON file, which each save replaces."""

import logging
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import write_atomically
from comfyui_workflow.runs.usage import UsageTotals, decode_usage, encode_usage
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.quarantine import link_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat

log = logging.getLogger(__name__)


class FileUsageStore:
    def __init__(self, file: Path, damage: DamageReport | None = None) -> None:
        self._file = file
        self._seal = RecordFormat()
        self._damage = damage or DamageReport()

    def open(self) -> UsageTotals:
        """Reads the totals. An unreadable file is kept as `<name>.damaged-…`. Raises: NewerRecord."""
        try:
            return decode_usage(self._seal.unseal(self._file.read_bytes(), self._file))
        except FileNotFoundError:
            return UsageTotals()
        except (OSError, StoreError) as error:
            link_to_quarantine(self._file, self._file.parent, str(error), f"{self._file.name}.damaged")
            outcome = "The connected and busy times of the instances are lost: their costs start again from 0"
            self._damage.add(self._file, error, outcome)
            return UsageTotals()

    def save(self, totals: UsageTotals) -> None:
        try:
            write_atomically(self._file, self._seal.seal(encode_usage(totals)))
        except OSError as error:
            log.warning("The usage of instances cannot be saved in %s: %s", self._file, error.strerror)
