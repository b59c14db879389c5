"""Logins of the named instances. Each is in a file of its own, which only the user of this server can read:
the file of the instances may be edited, shared and backed up.

    DATA_DIR/logins/<instance id>
"""

import logging
from contextlib import suppress
from pathlib import Path

from comfyui_workflow.comfyui.login import Login, decode_login
from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import make_private_directory, read_regular, write_atomically
from comfyui_workflow.files.disk_flush import flush_to_disk

log = logging.getLogger(__name__)


class FileLoginStore:
    """Thread-safe. `instance_id` is an id that the registry has checked: it is a safe file name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, instance_id: str, login: Login) -> None:
        """Saves a login, on disk when this returns. Raises: StoreError."""
        try:
            make_private_directory(self._directory)
            write_atomically(self._directory / instance_id, login.encode())
        except OSError as error:
            raise StoreError(f"The login of the instance cannot be saved: {error.strerror}") from error

    def get(self, instance_id: str) -> Login | None:
        """Returns the login; None if there is none, or it cannot be read."""
        try:
            return decode_login(read_regular(self._directory / instance_id))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            log.warning("the login of %s cannot be read: give it again", instance_id)
            return None

    def forget(self, instance_id: str) -> None:
        """Removes a login, on disk when this returns. Raises: StoreError."""
        try:
            with suppress(FileNotFoundError):
                (self._directory / instance_id).unlink()
                flush_to_disk([self._directory])
        except OSError as error:
            raise StoreError(f"The login of the instance cannot be removed: {error.strerror}") from error
