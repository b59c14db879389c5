"""The one reader of SSH strings as people paste them. Pure: opens nothing, runs nothing, no shell ever.

parse_ssh_address(text) -> SshAddress; raises InvalidAddress naming the part that is refused.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """Where an instance is. `comfyui_port` is the right-hand port of -L; `key_file` is a path on this server."""

    host: str
    port: int = 22
    user: str = "root"
    key_file: str | None = None
    comfyui_port: int | None = None
    comfyui_host: str = "localhost"
    jump: "SshAddress | None" = None
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def parse_ssh_address(text: object) -> SshAddress:
    raise NotImplementedError
