"""Formats the results of the tries as tables."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tests.chaos.harness import Verdict
from tests.power_cut.judgement import Kind, kind_of

OTHER = "something else"

HEAD = (
    "| fault | step | tries | ended as promised | executions on the instance | files whole |",
    "| --- | --- | --- | --- | --- | --- |",
)


def table(verdicts: Iterable[Verdict], left_out: Mapping[str, str]) -> str:
    """Returns a Markdown table with a row for each fault and step, followed by the faults that were not
    tried."""
    by_line: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_line[verdict.fault, verdict.step].append(verdict)
    lines = [*HEAD, *(_line(name, step, tries) for (name, step), tries in by_line.items())]
    return "\n".join([*lines, *_left_out(left_out)])


def _line(name: str, step: str, tries: list[Verdict]) -> str:
    kept = sum(not verdict.broken for verdict in tries)
    whole = sum(verdict.are_files_whole for verdict in tries)
    executions = sorted({verdict.executions for verdict in tries})
    counts = ", ".join(map(str, executions))
    return f"| {name} | {step} | {len(tries)} | {kept} | {counts} | {whole} |"


def kinds_table(verdicts: Iterable[Verdict]) -> str:
    """Returns a table of the power cuts: in how many of them each kind of promise was broken. Empty without
    power cuts."""
    cuts: dict[str, list[frozenset[str]]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.fault.startswith("power cut"):
            cuts[verdict.fault].append(_kinds(verdict))
    if not cuts:
        return ""
    lines = [
        f"| broken promises | {' | '.join(cuts)} |",
        "| --- |" + " --- |" * len(cuts),
        f"| of | {' | '.join(str(len(tries)) for tries in cuts.values())} |",
    ]
    for kind in [*Kind, OTHER]:
        figures = [sum(kind in kinds for kinds in tries) for tries in cuts.values()]
        if any(figures):
            lines.append(f"| {kind} | {' | '.join(map(str, figures))} |")
    return "\n".join(["", *lines])


def _kinds(verdict: Verdict) -> frozenset[str]:
    found = frozenset(kind for sentence in verdict.broken if (kind := kind_of(sentence)))
    return found or frozenset([OTHER] if verdict.broken else [])


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    for name, reason in left_out.items():
        yield f"\nNot tried: {name}: {reason}."


def said(verdict: Verdict) -> str:
    """Formats all data of a broken promise."""
    lines = "\n".join(f"  - {sentence}" for sentence in verdict.broken)
    return f"BROKEN {verdict.fault} | {verdict.step}\n{lines}\n{verdict.evidence}\n"
