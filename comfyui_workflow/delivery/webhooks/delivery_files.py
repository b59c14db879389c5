"""Webhooks as files: `<id>.json`, the record, written at each try; `<id>.content`, what is sent, once."""

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from comfyui_workflow.delivery.webhooks.delivery import (
    Delivery,
    damaged_delivery,
    decode_delivery,
    encode_delivery,
)
from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.parsing.untrusted import an_object, read_json
from comfyui_workflow.runs.job import record_name
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.atomic_write import (
    make_private_directory,
    read_regular,
    write_atomically,
)
from comfyui_workflow.stores.files.record_format import Seal
from comfyui_workflow.stores.files.run_directory import keep_aside, read_sealed

log = logging.getLogger(__name__)

_ID = re.compile("webhook_[0-9]{1,12}_[0-9a-f]{1,32}")


class DeliveryFiles:
    """Whatever writes one delivery at a time; different ones may be written at once."""

    def __init__(self, directory: Path, damage: DamageReport | None = None) -> None:
        self._directory = directory
        self._seal = Seal()
        self._damage = damage or DamageReport()
        self._aside = directory / "set-aside"

    def open(self) -> list[Delivery]:
        """Oldest first; one whose record cannot be read is listed as given up. Raises: ConfigurationError,
        also where a newer release has written one."""
        try:
            make_private_directory(self._directory)
            make_private_directory(self._aside)
            return list(self._read_all())
        except OSError as error:
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error

    def add(self, delivery: Delivery, content: bytes) -> None:
        """The record last: content without one was never accepted. Raises: StoreError."""
        try:
            write_atomically(self._content_path(delivery.delivery_id), content)
        except OSError as error:
            raise _cannot_save(error) from error
        try:
            self.save(delivery)
        except StoreError:
            self._unlink(self._content_path(delivery.delivery_id))
            raise

    def save(self, delivery: Delivery) -> None:
        """On disk when this returns. Raises: StoreError."""
        try:
            path = self._record_path(delivery.delivery_id)
            write_atomically(path, self._seal.seal(encode_delivery(delivery)))
        except OSError as error:
            raise _cannot_save(error) from error

    def content(self, delivery_id: str) -> bytes:
        """Raises: StoreError."""
        try:
            return read_regular(self._content_path(delivery_id))
        except OSError as error:
            raise StoreError(f"The content of the webhook cannot be read: {error.strerror}") from error

    def remove(self, delivery_id: str) -> None:
        """The record first. What cannot be removed is tried again at the next start."""
        self._unlink(self._record_path(delivery_id))
        self._unlink(self._content_path(delivery_id))

    def _read_all(self) -> Iterator[Delivery]:
        for path in sorted(self._directory.iterdir()):
            is_ours = _ID.fullmatch(path.stem) is not None
            if is_ours and path.suffix == ".json":
                yield from self._read(path)
            elif (is_ours and path.suffix == ".content" and not self._record_path(path.stem).exists()) or (
                path.name.startswith(".webhook_")
            ):
                self._unlink(path)  # a server died before it had taken the webhook on

    def _read(self, path: Path) -> Iterator[Delivery]:
        try:
            delivery = decode_delivery(read_sealed(path, self._seal))
            if delivery.delivery_id != path.stem:
                raise StoreError("the record of another webhook")
            yield delivery
        except (StoreError, OSError) as error:
            yield self._damaged(path, str(error))

    def _damaged(self, path: Path, reason: str) -> Delivery:
        content = self._content_or_nothing(path.stem)
        delivery = damaged_delivery(path.stem, _run_told(content), len(content), datetime.now(UTC), reason)
        keep_aside(path, self._aside, reason, path.name)
        try:
            self.save(delivery)
        except StoreError as error:  # the next start does it
            log.error("%s: %s", path.stem, error)
        self._damage.add(path, reason, "The webhook is listed as given up: its client has to ask instead")
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

    def _record_path(self, delivery_id: str) -> Path:
        return self._directory / f"{delivery_id}.json"

    def _content_path(self, delivery_id: str) -> Path:
        return self._directory / f"{delivery_id}.content"


def _run_told(content: bytes) -> str:
    """By the content, which is the document of a job."""
    try:
        told = an_object(read_json(content)).get("id")
    except ValueError:
        told = None
    return record_name(told) if isinstance(told, str) else ""


def _cannot_save(error: OSError) -> StoreError:
    return StoreError(f"The webhook cannot be saved: {error.strerror}")
