"""All attacks at once, at their real sizes: one instance that is out to harm does not harm the others."""

from pathlib import Path

import pytest

from tests.integration.siege import SIEGE, besiege

MOST_MEMORY_MB = 300


@pytest.mark.timeout(300)
def test_hostile_instances_harm_nobody_but_themselves(tmp_path: Path) -> None:
    measured = besiege(tmp_path, healthy_runs=3)
    assert [run["status"] for run in measured.healthy] == ["completed"] * 3
    assert measured.peak_mb < MOST_MEMORY_MB
    for name, (_, words) in SIEGE.items():
        run = measured.ended[name]
        if words:
            assert (run["status"], run["error_code"]) == ("failed", "instance_broken"), (name, run)
            assert words in run["error_message"]
            assert ("unreachable", run["error_message"]) in measured.troubles[name], name
    assert "Traceback" not in measured.log
