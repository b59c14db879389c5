"""Text about named instances: a table of all, or the details of one."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.run_text import clock_time, money, plain
from comfyui_workflow.client.instance_documents import (
    CostsDocument,
    DeviceDocument,
    InstanceDocument,
    SpentDocument,
    StateDocument,
)

_COLOURS = {"ready": "green", "connecting": "cyan", "unreachable": "red"}
_HEADINGS = ("name", "state", "queue", "memory free", "price", "tags")


def instance_table(instances: Sequence[InstanceDocument]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for instance in instances:
        state = instance.state
        table.add_row(
            Text(plain(instance.name), style="" if instance.enabled else "dim"),
            Text(_reachability(instance), style=_COLOURS.get(state.reachability, "dim")),
            Text(_queue(state)),
            Text(", ".join(map(_memory, state.devices))),
            Text(_price(instance)),
            Text(plain(" ".join(instance.tags))),
        )
    return table


def troubles(instances: Sequence[InstanceDocument]) -> Iterator[str]:
    """Yields a sentence for each error or warning of an instance; they are too long for a column."""
    for instance in instances:
        if instance.state.trouble:
            yield f"{plain(instance.name)}: {plain(instance.state.trouble)}"
        preparation = instance.state.preparation
        if preparation is not None and preparation.status != "done":
            yield f"{plain(instance.name)}: {plain(preparation.message)}"
        if instance.idle_warning:
            yield plain(instance.idle_warning)


def costs_table(costs: CostsDocument) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("name", no_wrap=True)
    for heading in ("runs", "GPU time", "cost of runs", "connected", "idle", "cost of idling"):
        table.add_column(heading, no_wrap=True, justify="right")
    for each in costs.instances:
        table.add_row(Text(plain(each.name)), *_spent(each))
    if costs.removed.runs or costs.removed.connected_s:
        table.add_row("(removed)", *_spent(costs.removed), style="dim")
    table.add_row("total", *_spent(costs.total), style="bold")
    return table


def _spent(costs: SpentDocument) -> tuple[str, ...]:
    return (
        str(costs.runs),
        clock_time(costs.gpu_seconds),
        money(costs.run_cost),
        clock_time(costs.connected_s),
        clock_time(costs.idle_s),
        money(costs.idle_cost),
    )


def instance_lines(instance: InstanceDocument) -> Iterator[str]:
    """Yields the known details of an instance; unknown details are left out."""
    warning = ("warning", instance.idle_warning or "")
    for heading, detail in (*_entry(instance), *_state(instance.state), warning):
        if detail:
            yield f"{heading + ':':14} {plain(detail)}"


def _entry(instance: InstanceDocument) -> Iterator[tuple[str, str]]:
    yield "name", instance.name
    yield "id", instance.id
    yield "ssh", instance.ssh_connection
    login = f", login with a {instance.comfyui_login}" if instance.comfyui_login else ""
    yield "ComfyUI", f"port {instance.comfyui_port}{login}"
    yield "directories", f"{instance.comfyui_input_dir}, {instance.comfyui_output_dir}"
    yield "for any", "yes" if instance.enabled else "no, only for runs that name it"
    yield "tags", " ".join(instance.tags)
    yield "price", _price(instance)
    yield "host key", f"{instance.host_key} and no other" if instance.host_key else ""
    yield "local port", f"127.0.0.1:{instance.local_port}" if instance.local_port else ""


def _state(state: StateDocument) -> Iterator[tuple[str, str]]:
    yield "state", state.reachability
    yield "trouble", state.trouble or ""
    yield "preparation", state.preparation.message if state.preparation else ""
    yield "version", f"ComfyUI {state.comfyui_version}" if state.comfyui_version else ""
    for device in state.devices:
        yield "device", f"{device.name}: {_memory(device)} free"
    yield "queue", _queue(state)
    yield "round trip", f"{state.round_trip_s * 1000:.0f} ms" if state.round_trip_s is not None else ""
    offered = state.host_key.offered if state.host_key else None
    yield "shows the key", offered or state.host_key_fingerprint or ""
    yield "idle for", clock_time(state.idle_s) if state.idle_since else ""


def _reachability(instance: InstanceDocument) -> str:
    return instance.state.reachability + ("" if instance.enabled else ", disabled")


def _queue(state: StateDocument) -> str:
    if state.prompts is None:
        return ""
    running, pending = len(state.prompts.running), len(state.prompts.pending)
    return f"{running} running, {pending} waiting" if running or pending else "idle"


def _memory(device: DeviceDocument) -> str:
    if device.vram_free is None or device.vram_total is None:
        return "?"
    return f"{device.vram_free / 2**30:.1f} of {device.vram_total / 2**30:.1f} GB"


def _price(instance: InstanceDocument) -> str:
    return "" if instance.price_per_hour is None else f"{instance.price_per_hour:g} an hour"
