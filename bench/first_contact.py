"""First contact with an instance: from nothing to a tunnel and files, host key checked and logged in."""

import time
from collections.abc import Iterator

from bench.ground import Ground, Way
from bench.table import Figure, Row, at_most, median
from comfyui_workflow.instances.address import parse_ssh_address
from comfyui_workflow.instances.connection import ConnectionOptions, open_connection
from comfyui_workflow.instances.host_keys import KnownHosts

REPETITIONS = 2


def rows(ground: Ground, runs: int, repetitions: int = REPETITIONS) -> Iterator[Row]:
    for way in ground.ways:
        yield _first_contact(ground, way, runs * repetitions)


def _first_contact(ground: Ground, way: Way, runs: int) -> Row:
    taken_ms = [_timed_contact_ms(ground, way) for _ in range(1 + runs)][1:]
    physical_ms = 5 * way.round_trip_ms + 25
    ours_ms = median(taken_ms)
    return Row(
        work=f"first contact with an instance, {way.name}",
        ours=Figure(value=ours_ms, unit="ms"),
        reference=Figure(value=physical_ms, unit="ms", about="5 round trips + 25 ms"),
        against=Figure(value=ours_ms, unit="ms"),
        goal=at_most(6 * way.round_trip_ms + 60, "ms"),
        note="TCP, host key, login, SFTP and tunnel: `open_connection`, each time with an empty known_hosts. "
        "The goal is 6 round trips + 60 ms.",
    )


def _timed_contact_ms(ground: Ground, way: Way) -> float:
    known_hosts = KnownHosts(ground.new_directory("known_hosts") / "known_hosts")
    options = ConnectionOptions(known_hosts=known_hosts, key_directory=None)
    began_s = time.perf_counter()
    connection = open_connection(parse_ssh_address(way.ssh_string), way.comfyui_port, options)
    took_ms = 1000 * (time.perf_counter() - began_s)
    connection.close()
    return took_ms
