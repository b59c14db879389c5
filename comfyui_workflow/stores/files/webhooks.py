"""Webhooks as files: `<id>.json` is the record, written at each attempt; `<id>.content` is the body, written
once."""

import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.files.atomic_write import (
    make_private_directory,
    read_regular,
    write_atomically,
)
from comfyui_workflow.parsing.untrusted import as_object, read_json
from comfyui_workflow.runs.job import record_name
from comfyui_workflow.runs.webhook import Delivery, damaged_delivery, decode_delivery, encode_delivery
from comfyui_workflow.stores.base import UnreadableRecord
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.quarantine import QUARANTINE
from comfyui_workflow.stores.files.record_files import RecordFiles
from comfyui_workflow.stores.files.record_format import RecordFormat

log = logging.getLogger(__name__)

_ID = re.compile("webhook_[0-9]{1,12}_[0-9a-f]{1,32}")


class FileWebhookStore:
    def __init__(self, directory: Path, damage: DamageReport | None = None) -> None:
        self._directory = directory
        self._files = RecordFiles(directory, "webhook", RecordFormat())
        self._damage = damage or DamageReport()

    def open(self) -> list[Delivery]:
        """Reads all deliveries. A damaged record is kept in quarantine and replaced.
        Raises: ConfigurationError, also if a newer release has written a record."""
        self._files.open()
        try:
            make_private_directory(self._directory / QUARANTINE)
            self._remove_incomplete()
        except OSError as error:
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error
        return [
            self._replaced(delivery_id, read) if isinstance(read, UnreadableRecord) else read
            for delivery_id, read in self._files.read_all(
                _ID, decode_delivery, lambda delivery: delivery.delivery_id
            )
        ]

    def add(self, delivery: Delivery, content: bytes) -> None:
        """Saves a delivery. The record is written last: content without a record was never accepted."""
        try:
            write_atomically(self._content_path(delivery.delivery_id), content)
        except OSError as error:
            raise StoreError(f"The webhook cannot be saved: {error.strerror}") from error
        try:
            self.save(delivery)
        except StoreError:
            self._unlink(self._content_path(delivery.delivery_id))
            raise

    def save(self, delivery: Delivery) -> None:
        self._files.write(delivery.delivery_id, encode_delivery(delivery))

    def content(self, delivery_id: str) -> bytes:
        try:
            return read_regular(self._content_path(delivery_id))
        except OSError as error:
            raise StoreError(f"The content of the webhook cannot be read: {error.strerror}") from error

    def remove(self, delivery_id: str) -> None:
        """Removes a delivery; first the record, because the next start removes content without a record."""
        self._unlink(self._files.path_of(delivery_id))
        self._unlink(self._content_path(delivery_id))

    def _remove_incomplete(self) -> None:
        """Removes the files of a server that crashed before it had accepted the webhook."""
        for path in sorted(self._directory.iterdir()):
            is_content = path.suffix == ".content" and _ID.fullmatch(path.stem) is not None
            if path.name.startswith(".webhook_") or (
                is_content and not self._files.path_of(path.stem).exists()
            ):
                self._unlink(path)

    def _replaced(self, delivery_id: str, damaged: UnreadableRecord) -> Delivery:
        content = self._content_or_nothing(delivery_id)
        at = datetime.now(UTC)
        delivery = damaged_delivery(delivery_id, _run_id_in(content), len(content), at, damaged.reason)
        self._files.link_to_quarantine(delivery_id, damaged.reason)
        try:
            self.save(delivery)
        except StoreError as error:  # the next start tries again
            log.error("%s: %s", delivery_id, error)
        outcome = "The webhook is listed as given up: its client must poll for the result"
        self._damage.add(damaged.path, damaged.reason, outcome)
        return delivery

    def _content_or_nothing(self, delivery_id: str) -> bytes:
        try:
            return self.content(delivery_id)
        except StoreError:
            return b""

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%r stays where it is: %s", str(path), error.strerror)

    def _content_path(self, delivery_id: str) -> Path:
        return self._directory / f"{delivery_id}.content"


def _run_id_in(content: bytes) -> str:
    """Returns the run id in the content, which is a job document; empty if there is none."""
    try:
        job_id = as_object(read_json(content)).get("id")
    except ValueError:
        job_id = None
    return record_name(job_id) if isinstance(job_id, str) else ""
