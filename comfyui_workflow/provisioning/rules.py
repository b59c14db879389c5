"""What may be put on an instance, and from where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from comfyui_workflow.errors import ProvisionFailed, StorageError
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.runs.credentials import NO_SECRETS, Auth, RequestSecrets
from comfyui_workflow.storage.base import SignedUrl
from comfyui_workflow.storage.http import authenticated
from comfyui_workflow.workflows.model_files import is_model

ANY = "any"


@dataclass(frozen=True, kw_only=True)
class DownloadRules:
    """`hosts`: names of hosts, which include their subdomains and mean https; origins (`http://10.0.0.5:8000`)
    mean exactly that; `any` means every host with https."""

    hosts: tuple[str, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Bearer tokens by host name."""

    @property
    def origins(self) -> list[str]:
        """The allowed origins: a redirect may lead to them although they are not public."""
        return [each.rstrip("/") for each in self.hosts if "://" in each]

    def refusal(self, url: str, name: str) -> str | None:
        """Returns the reason for which the file may not be downloaded; None if it may."""
        if not (is_model(name) or name.endswith((".yaml", ".yml"))):
            return "its name is not that of a model file"
        return self.host_refusal(url)

    def host_refusal(self, url: str) -> str | None:
        """Returns the reason for which nothing may be taken from this URL; None if it may."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            return "its URL is not valid"
        is_allowed = any(each == ANY or _is_below(host, each) for each in self.hosts)
        problems = {"its URL contains a password": parts.username is not None}
        if origin_of(url) not in self.origins:
            named = f"{origin_of(url)} is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"
            problems[f"{host} is not encrypted (https), and {named}"] = parts.scheme != "https"
            problems[f"{host} is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"] = not is_allowed
        return next((reason for reason, applies in problems.items() if applies), None)

    def signed(self, url: str, secrets: RequestSecrets = NO_SECRETS) -> SignedUrl:
        """Returns the URL as the instance asks for it, with the first of: a credential of the request, the
        password in the URL, the token of the settings. Raises: ProvisionFailed."""
        whole, auth = secrets.complete(url).partition("#")[0], secrets.auth_for(url)
        parts = urlsplit(whole)
        if parts.username is not None:
            whole = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            password = Auth(kind="basic", name=unquote(parts.username), secret=unquote(parts.password or ""))
            auth = auth or password
        if auth is None:
            return SignedUrl(url=whole, headers=self.headers(whole))
        try:
            return authenticated(whole, auth)
        except StorageError as error:
            raise ProvisionFailed(shown(error)) from error

    def headers(self, url: str) -> dict[str, str]:
        """Returns the headers with the token for this host. A token is sent encrypted only, except to an
        origin that the settings name."""
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or origin_of(url) in self.origins
        token = self.tokens.get(parts.hostname or "") if is_safe else None
        return {"Authorization": f"Bearer {token}"} if token else {}


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or "an invalid URL"
    except ValueError:
        return "an invalid URL"


def _is_below(host: str, allowed: str) -> bool:
    return host == allowed.lower() or host.endswith(f".{allowed.lower()}")
