"""Rules that changed between the versions of the editor."""

from dataclasses import dataclass

from comfyui_workflow.workflows.node_definitions import Definitions

_FIRST_WITH_NEW_RULES = (1, 40)
_CORE_CLASS = "KSampler"
"""A class of every ComfyUI: node definitions without it are not those of a whole instance."""


@dataclass(frozen=True, kw_only=True)
class EditorRules:
    """The rules by which the editor queues a file."""

    leaves_out_muted_subgraphs: bool
    """A muted or bypassed subgraph takes the nodes in it out of the graph. In older editors, the mode of each
    of these nodes decided."""
    leaves_out_unneeded: bool
    """If the nodes in a muted or bypassed subgraph are not left out: those that no output needs are. The
    editor of a new instance leaves out all of them."""
    muted_is_unlinked: bool
    """What is linked to a muted node counts as not linked: a widget keeps its value. In older editors, the
    widget had no value then, and links went through muted reroutes."""
    host_values_are_final: bool
    """A promoted widget that is linked to a source without a value, or to a primitive, does not change the
    widget inside. In older editors, the value of the promoted widget or of the primitive did."""


def rules_for(version: tuple[int, ...] | None, definitions: Definitions) -> EditorRules:
    """Returns the rules of the editor that saved the file. If the file does not tell its version, they are
    the newest ones, unless the instance is known to be older."""
    is_old_instance = _CORE_CLASS in definitions and not definitions.have_dynamic_inputs
    is_old = is_old_instance if version is None else version < _FIRST_WITH_NEW_RULES
    return EditorRules(
        leaves_out_muted_subgraphs=not is_old,
        leaves_out_unneeded=is_old and not is_old_instance,
        muted_is_unlinked=not is_old,
        host_values_are_final=not is_old,
    )
