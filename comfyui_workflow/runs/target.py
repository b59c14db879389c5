"""The target of a run: the machine or instance that the user wants. It is parsed once, when a request or a
record is read.

    ssh -p 40738 root@198.51.100.7    Address       one machine, by an ssh string
    primary                           InstanceId    a named instance, by its name or id
    any, any:sdxl                     AnyInstance   the best instance that has the tag

`text` is what the user wrote. Records keep the text and, beside it, the id of the instance. The text in a
record of an earlier release may no longer be a valid address. It is read as an `UnreadableTarget`, and
`address_of` raises the sentence that refuses it.
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
    """The name or id of the instance at the time of the request."""
    instance_id: str


@dataclass(frozen=True, kw_only=True)
class AnyInstance:
    text: str = ANY
    tag: str = ""
    """In lowercase; empty for `any`."""


@dataclass(frozen=True, kw_only=True)
class UnreadableTarget:
    text: str
    reason: str
    """The sentence that refuses the text."""


Target = Address | InstanceId | AnyInstance | UnreadableTarget


def read_any(text: str) -> AnyInstance | None:
    """None if the text names one machine."""
    word, colon, tag = text.partition(":")
    if word.strip().lower() != ANY or (colon and not tag.strip()):
        return None
    return AnyInstance(text=text, tag=tag.strip().lower())


def read_address(text: str) -> Address:
    """Raises: InvalidAddress."""
    return Address(text=text, ssh=parse_ssh_address(text))


@lru_cache(maxsize=1024)
def target_of_record(text: str, instance_id: str | None = None) -> Target:
    """The target of a record with this text and instance id. Cached, because thousands of records have equal
    targets."""
    any_instance = read_any(text)
    if any_instance is not None:
        return any_instance
    if instance_id is not None:
        return InstanceId(text=text, instance_id=instance_id)
    try:
        return read_address(text)
    except InvalidAddress as error:
        return UnreadableTarget(text=text, reason=str(error))


def tag_of(target: Target) -> str | None:
    """The tag of an `any` target; None for other targets."""
    return target.tag if isinstance(target, AnyInstance) else None


def address_of(target: Target) -> SshAddress:
    """Raises: InvalidAddress if the target has no address of its own."""
    match target:
        case Address():
            return target.ssh
        case UnreadableTarget():
            raise InvalidAddress(target.reason)
        case InstanceId() | AnyInstance():
            raise InvalidAddress(f'"{target.text}" leads to no machine until an instance was chosen')
