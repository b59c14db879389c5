"""Everything that puts something on an instance for a run."""

from dataclasses import dataclass

from comfyui_workflow.provisioning.models import ModelProvisioner
from comfyui_workflow.provisioning.packs import PackOffers, PackProvisioner, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.events import TellEvent, tell_nobody


@dataclass(frozen=True, kw_only=True)
class Provisioners:
    models: ModelProvisioner
    packs: PackProvisioner


def provisioners(rules: PackRules, web: GuardedClient, tell: TellEvent = tell_nobody) -> Provisioners:
    return Provisioners(
        models=ModelProvisioner(rules.downloads, tell), packs=PackProvisioner(PackOffers(rules, web))
    )


def no_provisioners() -> Provisioners:
    """Provisioners that may take nothing from anywhere."""
    return provisioners(PackRules(downloads=DownloadRules()), GuardedClient(may_reach_private=False))
