"""Cells of a table arrive at the nodes in their type, and none silently becomes another value."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cli.conftest import Command
from tests.integration.graphs import Graph, node, painted
from tests.sandbox_process import SandboxProcess


def workflow() -> Graph:
    graph = painted(0x123456, prefix="typed")
    return graph | {
        "2": node("SandboxSlow", image=["1", 0], steps=1, seconds_per_step=0.0, seed=1, preview=True)
    }


def submitted(server: str, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Inputs of the submitted graphs, by `<node id>.<input>`."""
    graphs = [
        requests.get(f"{server}/comfyui/workflow/{run['workflow_id']}/request", timeout=10).json()["graph"]
        for run in summary["workflows"]
    ]
    return [
        {f"{at}.{name}": value for at, each in graph.items() for name, value in each["inputs"].items()}
        for graph in graphs
    ]


def batch(command: Command, sandbox: SandboxProcess, directory: Path, table: str) -> Any:
    (directory / "w.json").write_text(json.dumps(workflow()))
    (directory / "rows.csv").write_text(table, encoding="utf-8-sig")
    return command(
        "batch", directory / "w.json", "--ssh", sandbox.ssh_string, "--rows", directory / "rows.csv", "--json"
    )


def test_cells_get_the_type_of_their_input(
    command: Command, sandbox: SandboxProcess, server: str, tmp_path: Path
) -> None:
    table = "2.preview;2.seconds_per_step;3.filename_prefix\nFALSCH;0.00;12E45\nnein;0e0;1.50\n1;;007\n"
    result = batch(command, sandbox, tmp_path, table)
    assert result.exit_code == 0
    first, second, third = submitted(server, json.loads(result.stdout))
    assert (first["2.preview"], second["2.preview"], third["2.preview"]) == (False, False, True)
    assert [each["3.filename_prefix"] for each in (first, second, third)] == ["12E45", "1.50", "007"]
    assert (first["2.seconds_per_step"], second["2.seconds_per_step"]) == (0.0, 0.0)


def test_each_row_with_minus_one_has_a_seed_of_its_own(
    command: Command, sandbox: SandboxProcess, server: str, tmp_path: Path
) -> None:
    result = batch(command, sandbox, tmp_path, "2.seed\n-1\n-1\n7\n")
    assert result.exit_code == 0
    seeds = [each["2.seed"] for each in submitted(server, json.loads(result.stdout))]
    assert len(set(seeds)) == 3
    assert seeds[2] == 7
    assert min(seeds) >= 0


@pytest.mark.usefixtures("server")
def test_a_value_that_would_become_another_one_is_the_error_of_its_row(
    command: Command, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    result = batch(command, sandbox, tmp_path, "2.preview;1.width\nperhaps;8\nja;8.5\nja;8\n")
    assert result.exit_code == 1
    first, second, third = json.loads(result.stdout)["workflows"]
    assert (first["status"], second["status"], third["status"]) == ("failed", "failed", "completed")
    assert "node 2 (SandboxSlow): input \"preview\" is 'perhaps'" in first["error_message"]
    assert (
        'node 1 (EmptyImage): input "width" is 8.5, it must be INT (a whole number)'
        in second["error_message"]
    )
    assert (first["error_code"], first["failed_node_id"]) == ("invalid_inputs", "2")
    assert not first["can_retry"]
