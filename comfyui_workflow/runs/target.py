"""The target of a run: where a person wants it to go. It is parsed once, where a request or a record is read.

    ssh -p 40738 root@198.51.100.7    Address       one machine, by an ssh string
    primary                           InstanceId    a named instance, by its name or id
    any, any:sdxl                     AnyInstance   the best of those that have the tag

`text` is what the person wrote. Records keep that, and the id of the instance beside it. A record of an
earlier release may have a text that is no address any more: it is read as an `UnreadableTarget`, and whoever
asks that for its address gets the sentence that refuses it.
"""

from dataclasses import dataclass
from functools import lru_cache

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address

ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Address:
    text: str
    ssh: SshAddress


@dataclass(frozen=True, kw_only=True)
class InstanceId:
    text: str
    """Its name or id, as it was called then."""
    instance_id: str


@dataclass(frozen=True, kw_only=True)
class AnyInstance:
    text: str = ANY
    tag: str = ""
    """In small letters; empty for `any`."""


@dataclass(frozen=True, kw_only=True)
class UnreadableTarget:
    text: str
    reason: str
    """The sentence that refuses it."""


Target = Address | InstanceId | AnyInstance | UnreadableTarget


def read_any(text: str) -> AnyInstance | None:
    """None for what names one machine."""
    word, colon, tag = text.partition(":")
    if word.strip().lower() != ANY or (colon and not tag.strip()):
        return None
    return AnyInstance(text=text, tag=tag.strip().lower())


def read_address(text: str) -> Address:
    """Raises: InvalidAddress."""
    return Address(text=text, ssh=parse_ssh_address(text))


@lru_cache(maxsize=1024)
def target_of_record(text: str, instance_id: str | None = None) -> Target:
    """The target whose text and instance id a record has. Thousands of records have the same."""
    meant = read_any(text)
    if meant is not None:
        return meant
    if instance_id is not None:
        return InstanceId(text=text, instance_id=instance_id)
    try:
        return read_address(text)
    except InvalidAddress as error:
        return UnreadableTarget(text=text, reason=str(error))


def tag_of(target: Target) -> str | None:
    """None where it is not `any`."""
    return target.tag if isinstance(target, AnyInstance) else None


def address_of(target: Target) -> SshAddress:
    """Raises: InvalidAddress for what leads to no machine by itself."""
    match target:
        case Address():
            return target.ssh
        case UnreadableTarget():
            raise InvalidAddress(target.reason)
        case InstanceId() | AnyInstance():
            raise InvalidAddress(f'"{target.text}" leads to no machine until an instance was chosen')
