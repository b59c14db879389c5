"""Validation of an instance entry that a user wrote in the instances file or sent in a request.

read_instance(fields, instance_id) -> Instance
refuse_clash(instance, others)      checks that ids, names and local ports are unique
refuse_unknown(fields)              refuses unknown fields; for requests only
read_id(fields), new_id(name, taken)
All raise InvalidRequest, which names the field.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields as fields_of
from itertools import chain, count
from typing import Any

from comfyui_workflow.comfyui.login import LOGIN_FIELDS
from comfyui_workflow.errors import InvalidAddress, InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.parsing.fields import flag, integer, refuse_unknown_fields, remote_dir, text
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.runs.target import ANY
from comfyui_workflow.ssh import defaults

KNOWN_FIELDS = frozenset(field.name for field in fields_of(Instance)).union(LOGIN_FIELDS)
RESERVED = (ANY, "costs")
"""Not allowed as names: they have another meaning where a name is expected."""
LONGEST_NAME, LONGEST_TAG, MOST_TAGS = 64, 32, 32
HIGHEST_PRICE = 1_000_000
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")

Fields = Mapping[str, Any]


def read_instance(fields: Fields, instance_id: str) -> Instance:
    """Parses an instance; missing fields and null take their default. Raises: InvalidRequest,
    InvalidAddress."""
    given = {name: value for name, value in fields.items() if value is not None}
    if login := next((name for name in LOGIN_FIELDS if name in given), None):
        raise InvalidRequest(f"{login} is not kept in the file of the instances: set it with PATCH or `edit`")
    ssh_connection, default_port = _ssh_connection(given)
    return Instance(
        id=instance_id,
        name=_name(given),
        ssh_connection=ssh_connection,
        comfyui_port=integer(given, "comfyui_port", default_port, 1, 65535),
        comfyui_input_dir=remote_dir(given, "comfyui_input_dir", defaults.INPUT_DIR),
        comfyui_output_dir=remote_dir(given, "comfyui_output_dir", defaults.OUTPUT_DIR),
        enabled=flag(given, "enabled", default=True),
        tags=_tags(given),
        price_per_hour=_price(given),
        host_key=_host_key(given),
        local_port=integer(given, "local_port", 0, 1024, 65535) or None,
        keep_connected=flag(given, "keep_connected"),
    )


def refuse_clash(instance: Instance, others: Iterable[Instance]) -> None:
    for other in others:
        if other.id == instance.id:
            raise InvalidRequest(f"id: {other.id} is the id of {other.name} already")
        if instance.name.casefold() == other.name.casefold():
            raise InvalidRequest(f"name: another instance is called {other.name} already")
        if instance.name.casefold() == other.id:
            raise InvalidRequest(f"name: {other.id} is the id of {other.name} already")
        if instance.id == other.name.casefold():
            raise InvalidRequest(f"id: another instance is called {other.name} already")
        if instance.local_port is not None and instance.local_port == other.local_port:
            raise InvalidRequest(f"local_port: {other.name} has {other.local_port} already")


def refuse_unknown(fields: Fields) -> None:
    if "id" in fields:
        raise InvalidRequest("id cannot be set: it is made from the name, and never changes")
    refuse_unknown_fields(fields, KNOWN_FIELDS - {"id"}, "an instance")


def read_id(fields: Fields) -> str | None:
    """Returns the id of the entry, or None if it has none yet."""
    value = text(fields, "id")
    if value is not None and not is_id(value):
        raise InvalidRequest("id must be made of a-z, 0-9 and - (and is neither any nor costs)")
    return value


def is_id(value: str) -> bool:
    return bool(_ID.fullmatch(value)) and value not in RESERVED


def new_id(name: str, taken: Collection[str]) -> str:
    """Returns an id made from the letters of the name that are valid in an id, with a number if it is
    taken."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub("[^a-z0-9]+", "-", plain)[: LONGEST_NAME - 8].strip("-") or "instance"
    ids = chain([slug], (f"{slug}-{number}" for number in count(2)))
    return next(each for each in ids if each not in taken and each not in RESERVED)


def _ssh_connection(given: Fields) -> tuple[str, int]:
    """Returns the ssh string, and the default for ComfyUI's port: the one of its -L, else the usual port."""
    value = text(given, "ssh_connection")
    if not value:
        raise InvalidRequest("ssh_connection is required")
    try:
        address = parse_ssh_address(value)
    except InvalidAddress as error:
        raise InvalidAddress(f"ssh_connection: {error}") from error
    if _first_word(value) == ANY:
        raise InvalidRequest(f"ssh_connection must lead to one machine, and {value} does not")
    return value, address.comfyui_port or defaults.COMFYUI_PORT


def _name(given: Fields) -> str:
    name = text(given, "name")
    if not name:
        raise InvalidRequest("name is required")
    if len(name) > LONGEST_NAME or not name.isprintable() or "/" in name or not name.strip("."):
        raise InvalidRequest(f"name must be 1 to {LONGEST_NAME} printable characters, without /")
    if _first_word(name) in RESERVED:
        raise InvalidRequest(f"name must be another one: {name} means something else")
    if _is_address(name):
        raise InvalidRequest(f"name must not look like an ssh string: {name}")
    return name


def _first_word(value: str) -> str:
    return value.partition(":")[0].strip().casefold()


def _is_address(name: str) -> bool:
    """True if the name looks like an ssh string. A single word is accepted: names are looked up before
    hosts."""
    try:
        parse_ssh_address(name)
    except InvalidAddress:
        return False
    return any(letter in "@:" or letter.isspace() for letter in name)


def _tags(given: Fields) -> tuple[str, ...]:
    tags = given.get("tags", [])
    if not isinstance(tags, list | tuple) or len(tags) > MOST_TAGS or not all(map(_is_tag, tags)):
        raise InvalidRequest(
            f"tags must be a list of at most {MOST_TAGS} words of 1 to {LONGEST_TAG} characters, "
            "without spaces, commas and colons"
        )
    return tuple(dict.fromkeys(tags))


def _is_tag(tag: object) -> bool:
    return (
        isinstance(tag, str)
        and 1 <= len(tag) <= LONGEST_TAG
        and tag.isprintable()
        and not any(letter in ",:" or letter.isspace() for letter in tag)
    )


def _price(given: Fields) -> float | None:
    price = given.get("price_per_hour")
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= HIGHEST_PRICE:
        raise InvalidRequest(f"price_per_hour must be a number from 0 to {HIGHEST_PRICE}")
    return float(price)


def _host_key(given: Fields) -> str | None:
    value = text(given, "host_key")
    if value is not None and not _FINGERPRINT.fullmatch(value):
        raise InvalidRequest("host_key must be a fingerprint as ssh-keygen -lf shows it: SHA256:…")
    return value
