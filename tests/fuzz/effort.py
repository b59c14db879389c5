"""How hard the property tests look: short and the same each time in `make test`; by hand as long as you like:

FUZZ_EXAMPLES=5000 python -m pytest tests/fuzz -n 2
"""

import os

from hypothesis import HealthCheck, settings

_BY_HAND = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def effort(examples: int) -> settings:
    """`examples` in `make test`, where green must stay green; by hand as many as asked for, always others."""
    return settings(
        max_examples=_BY_HAND or examples,
        derandomize=not _BY_HAND,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
