"""Which node packs the settings allow."""

import pytest

from comfyui_workflow.provisioning.packs import PackRules
from comfyui_workflow.workflows.node_packs import NodePack

BOTH = NodePack(registry_id="fancy", repository="me/fancy")
REGISTRY_ONLY = NodePack(registry_id="fancy", repository=None)
REPOSITORY_ONLY = NodePack(registry_id=None, repository="me/fancy")


@pytest.mark.parametrize(
    ("packs", "pack", "is_allowed"),
    [
        (("Fancy",), REGISTRY_ONLY, True),
        (("fancy",), BOTH, True),
        (("me/fancy",), REPOSITORY_ONLY, True),
        (("registry",), BOTH, True),
        (("registry",), REPOSITORY_ONLY, False),
        (("any",), REPOSITORY_ONLY, True),
        ((), REGISTRY_ONLY, False),
        # the registry tells the repository of a pack with an id, whatever the file claims
        (("me/fancy",), BOTH, False),
        # words of the setting are no ids
        (("none",), NodePack(registry_id="none", repository=None), False),
    ],
)
def test_a_pack_is_allowed_by_the_name_that_it_is_installed_from(
    packs: tuple[str, ...], pack: NodePack, is_allowed: bool
) -> None:
    assert PackRules(packs=packs).is_allowed(pack) is is_allowed
