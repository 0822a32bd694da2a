# SPDX-License-Identifier: GPL-2.0-only
"""``docs/generated/drivers.md``: the table of the drivers, and the paths to each error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from importlib import resources
from typing import Any

from iommudrivers.model import Driver, How, Reason, Source, Verdict
from iommudrivers.notes import Note
from iommuq.system.progress import one_line

_HEAD = (
    "driver",
    "identity",
    "attaching it",
    "blocked",
    "attaching it",
    "release",
    "default domain",
    "reserved regions",
)
#: Number of errors of one function that are listed; the others are counted.
_MOST = 8


@dataclass(frozen=True)
class Kernel:
    """The drivers of one kernel.

    :ivar title: its name.
    :ivar notes: remarks from reading the source.
    """

    base: str
    title: str
    drivers: tuple[Driver, ...]
    notes: tuple[Note, ...] = ()


def render(kernels: Sequence[Kernel]) -> str:
    """Return the page."""
    head = resources.files(__package__).joinpath("drivers.md").read_text(encoding="utf-8")
    lines = [head.strip(), ""]
    for kernel in kernels:
        lines += _kernel(kernel)
    return "\n".join(lines).rstrip() + "\n"


def as_text(kernels: Sequence[Kernel]) -> str:
    """Return the tables and paths for the terminal, without the explanation."""
    return "\n".join(line for kernel in kernels for line in _kernel(kernel)).rstrip()


def as_json(kernels: Sequence[Kernel]) -> list[dict[str, Any]]:
    """Return all results."""
    return [
        {
            "base": kernel.base,
            "kernel": kernel.title,
            "drivers": [_plain(asdict(driver)) | _answers(driver) for driver in kernel.drivers],
        }
        for kernel in kernels
    ]


def _answers(driver: Driver) -> dict[str, Any]:
    return {
        f"{what}_answers": [each.verdict.answer.value for each in sources if each.verdict]
        for what, sources in (("identity", driver.identity), ("blocked", driver.blocked))
    }


def _plain(value: Any) -> Any:
    """Convert a value for JSON."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        if value.keys() == {"path", "line"}:
            return f"{value['path']}:{value['line']}"
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _kernel(kernel: Kernel) -> list[str]:
    lines = [f"## {safe(kernel.title)}", "", f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    lines += [f"| {' | '.join(_row(driver, kernel.drivers))} |" for driver in kernel.drivers]
    lines.append("")
    for note in kernel.notes:
        lines += [f"- **{safe(note.driver)}**, by reading: {safe(note.text)}"]
    lines += [""] if kernel.notes else []
    for driver in kernel.drivers:
        lines += _details(driver)
    return lines


def _name(driver: Driver, drivers: Sequence[Driver]) -> str:
    twins = [each for each in drivers if each.name == driver.name]
    return driver.name if len(twins) == 1 else f"{driver.name} (`{driver.ops}`)"


def _row(driver: Driver, drivers: Sequence[Driver]) -> list[str]:
    kinds = list(dict.fromkeys(region.kind for region in driver.regions))
    default = driver.default.partition("(): ")[2] or driver.default
    cells = [
        _name(driver, drivers),
        *_pair(driver.identity),
        *_pair(driver.blocked),
        driver.release.partition(" (")[0] or "-",
        default.partition(" (")[0].replace("undecided: ", "undecided ") or "-",
        ", ".join(kinds) or "-",
    ]
    return [safe(cell) for cell in cells]


def _pair(sources: Sequence[Source]) -> tuple[str, str]:
    hows = [_how(each) for each in sources]
    if len(set(hows)) == 1:
        answers = list(dict.fromkeys(_answer(each) for each in sources))
        return hows[0], " or ".join(answers)
    return " or ".join(hows), " or ".join(_answer(each) for each in sources)


def _how(source: Source) -> str:
    if source.how is How.NONE and source.verdict is not None:
        return "none (empty paging domain)"
    return "allocated" if source.how is How.ALLOCATED else source.how.value


def _answer(source: Source) -> str:
    if source.verdict is None:
        return "-"
    answer = source.verdict.answer.value
    failures = list(dict.fromkeys(each.what for each in source.verdict.failures))
    if not failures:
        return answer
    more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
    return f"**{answer}**: {', '.join(failures[:3])}{more}"


def _details(driver: Driver) -> list[str]:
    lines = [f"### {driver.name}: `{driver.ops}`", "", f"{driver.place}", ""]
    for what, sources in (("identity", driver.identity), ("blocked", driver.blocked)):
        for source in sources:
            lines += _source(what, source)
    if driver.release:
        lines.append(f"- release domain: {safe(driver.release)}")
    if driver.default:
        lines.append(f"- default domain: {safe(driver.default)}")
    if driver.resv:
        lines.append(f"- reserved regions, by `{driver.resv}`:{'' if driver.regions else ' none'}")
        for region in driver.regions:
            way = " → ".join(region.chain[1:])
            lines.append(f"  - {region.kind}: {region.place}{f', by {safe(way)}' if way else ''}")
    for unknown in driver.unknown:
        lines.append(f"- undecided: {safe(unknown)}")
    return [*lines, ""]


def _source(what: str, source: Source) -> list[str]:
    if source.how is How.NONE and source.verdict is None:
        text = "; ".join(source.notes)
        return [f"- {what}: none{f'; {safe(text)}' if text else ''}"]
    name = f" `{source.name}`" if source.name else ""
    place = f" ({source.place})" if source.place else ""
    notes = "".join(f"; {safe(note)}" for note in source.notes)
    line = f"- {what}: {source.how.value}{name}{place}{notes}"
    if source.verdict is None:
        return [line]
    verdict = source.verdict
    line += f"; `{verdict.attach}` ({verdict.place}) {_phrase(verdict)}"
    return [line, *(f"  - {each}" for each in _reasons(verdict))]


def _phrase(verdict: Verdict) -> str:
    return {
        "never": "never fails",
        "can fail": "can fail:",
        "undecided": "may fail, it is undecided:",
    }[verdict.answer.value]


def _reasons(verdict: Verdict) -> Iterator[str]:
    """Yield the paths to errors, grouped by function."""
    groups: dict[tuple[str, ...], list[Reason]] = {}
    for reason in verdict.failures:
        groups.setdefault(reason.chain, []).append(reason)
    for chain, reasons in groups.items():
        way = " → ".join(f"`{name}`" for name in chain[1:])
        said = [
            f"{each.what} at {each.place}{f', if {each.when}' if each.when else ''}"
            for each in reasons[:_MOST]
        ]
        more = len(reasons) - len(said)
        said += [f"{more} more"] if more > 0 else []
        yield safe(f"{f'{way}: ' if way else ''}{'; '.join(said)}")
    for reason in verdict.unknown:
        way = " → ".join(f"`{name}`" for name in reason.chain[1:])
        yield safe(f"undecided: {reason.what} ({reason.place}){f', in {way}' if way else ''}")


def safe(text: str) -> str:
    """Return text escaped for a cell or a line."""
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")
