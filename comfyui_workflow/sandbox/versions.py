"""The versions of ComfyUI that the sandbox can imitate, and what differs between them.

0.33.0 is the default. 0.8.0 has the routes and messages of that version, but the node classes of 0.33.0; the
two oldest versions have the node classes of 0.3.64.
"""

from enum import StrEnum


class Version(StrEnum):
    """One version. The properties say what clients can see of it."""

    V0_33_0 = "0.33.0"
    V0_8_0 = "0.8.0"
    V0_3_64 = "0.3.64"
    V0_3_41 = "0.3.41"

    @property
    def knows_prompt_ids(self) -> bool:
        """True if clients choose prompt ids, interrupt one prompt, and receive `progress_state`."""
        return self.has("0.3.64")

    @property
    def lists_jobs(self) -> bool:
        """True for GET /api/jobs, and for `create_time` in the extra data of a prompt."""
        return self.has("0.8.0")

    @property
    def previews_one_prompt(self) -> bool:
        """True if `extra_data.preview_method` turns the previews of one prompt on or off."""
        return self.has("0.8.0")

    @property
    def checks_every_list(self) -> bool:
        """True if values of type COMBO are checked too; before, only those of a bare list are."""
        return self.has("0.8.0")

    @property
    def has_newer_declarations(self) -> bool:
        """True if the node classes are declared as in 0.33.0, else as in 0.3.64."""
        return self.has("0.8.0")

    @property
    def cancels_jobs(self) -> bool:
        """True for POST /api/jobs/{id}/cancel and for the job status "cancelled"."""
        return self.has("0.33.0")

    @property
    def replaces_nodes(self) -> bool:
        return self.has("0.33.0")

    @property
    def wants_canonical_ids(self) -> bool:
        """True if a prompt id that is not a canonical UUID is refused."""
        return self.has("0.33.0")

    @property
    def refuses_cross_site(self) -> bool:
        """True if requests with `Sec-Fetch-Site: cross-site` are refused."""
        return self.has("0.33.0")

    @property
    def explains_refusals(self) -> bool:
        """True for the error types `missing_node_type` and `dependency_cycle`."""
        return self.has("0.33.0")

    @property
    def features(self) -> dict[str, object]:
        """The server's feature flags."""
        flags: dict[str, object] = {"supports_preview_metadata": True, "max_upload_size": 104857600}
        if self.has("0.8.0"):
            flags["extension"] = {"manager": {"supports_v4": True}}
        if self.has("0.33.0"):
            flags |= {"supports_model_type_tags": True, "node_replacements": True, "assets": False}
        return flags

    def has(self, first: str) -> bool:
        """True if this version is `first` or a later one. An empty `first` stands for every version."""
        return not first or _numbers(self) >= _numbers(first)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


DEFAULT_VERSION = Version.V0_33_0
