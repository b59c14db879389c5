"""What the tries came to, as a table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tests.chaos.harness import Verdict
from tests.power_cut.judgement import Kind, kind_of

OTHER = "something else"

HEAD = (
    "| fault | step | tries | ended as promised | executions on the instance | files whole |",
    "| --- | --- | --- | --- | --- | --- |",
)


def table(verdicts: Iterable[Verdict], left_out: Mapping[str, str]) -> str:
    """Markdown; a line for each fault at each step, and what could not be tried below it."""
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
    """Of the power cuts: in how many of them each kind of promise was broken, and how often. Empty without
    any power cut."""
    cuts: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.fault.startswith("power cut"):
            cuts[verdict.fault].append(verdict)
    if not cuts:
        return ""
    counted = {name: [Counter(_kinds(verdict)) for verdict in tries] for name, tries in cuts.items()}
    lines = [f"| cuts | {' | '.join(str(len(tries)) for tries in cuts.values())} |"]
    for kind in [*Kind, OTHER]:
        if any(count[kind] for counts in counted.values() for count in counts):
            figures = [_figure(kind, counts) for counts in counted.values()]
            lines.append(f"| {kind} | {' | '.join(figures)} |")
    head = f"| broken promise: in so many cuts (times in all) | {' | '.join(cuts)} |"
    return "\n".join([head, "| --- |" + " --- |" * len(cuts), *lines])


def _kinds(verdict: Verdict) -> Iterator[str]:
    found = [kind for sentence in verdict.broken if (kind := kind_of(sentence))]
    yield from found or ([OTHER] if verdict.broken else [])


def _figure(kind: str, counts: list[Counter[str]]) -> str:
    return f"{sum(count[kind] > 0 for count in counts)} ({sum(count[kind] for count in counts)})"


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    for name, reason in left_out.items():
        yield f"\nNot tried: {name}: {reason}."


def said(verdict: Verdict) -> str:
    """Everything needed to understand a broken promise."""
    lines = "\n".join(f"  - {sentence}" for sentence in verdict.broken)
    return f"BROKEN {verdict.fault} | {verdict.step}\n{lines}\n{verdict.evidence}\n"
