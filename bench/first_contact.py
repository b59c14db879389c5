"""First contact with an instance: duration of login and host key check until tunnel and SFTP are ready."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.table import Figure, Row, at_most, median
from bench.testbed import Link, Testbed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts

REPETITIONS = 2


def rows(testbed: Testbed, runs: int, repetitions: int = REPETITIONS) -> Iterator[Row]:
    for link in testbed.links:
        contacts = [_contact(testbed, link) for _ in range(1 + runs * repetitions)][1:]
        physical = Figure(value=5 * link.round_trip_ms + 25, unit="ms", about="5 round trips + 25 ms")
        open_ms = Figure(value=median(contact.open_ms for contact in contacts), unit="ms")
        files_ms = Figure(value=median(contact.files_ms for contact in contacts), unit="ms")
        yield Row(
            work=f"first contact with an instance, {link.name}",
            ours=open_ms,
            reference=physical,
            against=open_ms,
            goal=at_most(6 * link.round_trip_ms + 60, "ms"),
            note="`open_connection`: TCP, host key, login and tunnel, with an empty known_hosts. The "
            "goal is 6 round trips + 60 ms.",
        )
        yield Row(
            work=f"the same, including the first SFTP stat, {link.name}",
            ours=files_ms,
            reference=physical,
            against=files_ms,
        )


@dataclass(frozen=True, kw_only=True)
class Contact:
    open_ms: float
    files_ms: float


def _contact(testbed: Testbed, link: Link) -> Contact:
    known_hosts = KnownHosts(testbed.new_directory("known_hosts") / "known_hosts")
    options = ConnectionOptions(known_hosts=known_hosts, key_directory=None)
    address = parse_ssh_address(link.ssh_string)
    began_s = time.perf_counter()
    connection = open_connection(address, link.comfyui_port, options)
    try:
        opened_s = time.perf_counter()
        connection.files.stat("/")
        looked_s = time.perf_counter()
    finally:
        connection.close()
    return Contact(open_ms=1000 * (opened_s - began_s), files_ms=1000 * (looked_s - began_s))
