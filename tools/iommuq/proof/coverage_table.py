# SPDX-License-Identifier: GPL-2.0-only
"""The table of coverage: a row for each function, with its lines and branches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from iommuq.proof.coverage import FileCover, FunctionCover

#: Version of the JSON form.
JSON_FORMAT = 1
#: The most missed ranges to show for one function.  JSON has all.
_NAMED = 8

#: Functions by path and name.
Names = Collection[tuple[str, str]]


def report_lines(covers: Sequence[FileCover], touched: Names) -> Iterator[str]:
    """Yield the table; the functions in *touched* are marked, and have a sum."""
    for cover in covers:
        if cover.functions is None:
            yield f"{cover.path}: not in this kernel"
            continue
        width = max([len(each.name) for each in cover.functions] + [len(cover.path)]) + 2
        yield f"{cover.path:<{width + 2}}{'lines':>15}{'branches':>15}  not executed; one way only"
        for function in cover.functions:
            mark = "*" if (cover.path, function.name) in touched else " "
            missed = "; ".join(filter(None, [_numbers(function.missed), _numbers(function.half)]))
            if function.half and not function.missed:
                missed = f"; {missed}"
            yield f"{mark} {function.name:<{width}}{_counts([function])}  {missed}".rstrip()
        yield f"  {'all functions':<{width}}{_counts(cover.functions)}"
        own = [each for each in cover.functions if (cover.path, each.name) in touched]
        if own:
            yield f"* {'functions of the queue':<{width}}{_counts(own)}"


def _counts(functions: Sequence[FunctionCover]) -> str:
    totals = _totals(functions)
    text = ""
    for what in ("lines", "branches"):
        total, executed = totals[what], totals[f"{what}_executed"]
        ratio = f"{executed}/{total} {100 * executed // total:3}%" if total else "-     "
        text += f"{ratio:>15}"
    return text


def _totals(functions: Sequence[FunctionCover]) -> dict[str, int]:
    lines = [count for each in functions for count in each.lines.values()]
    ways = [count for each in functions for way in each.branches.values() for count in way]
    return {
        "lines": len(lines),
        "lines_executed": len(lines) - lines.count(0),
        "branches": len(ways),
        "branches_executed": len(ways) - ways.count(0),
    }


def _numbers(lines: Sequence[int]) -> str:
    """Return line numbers as ranges, such as ``3, 7-9``, with an ellipsis if there are many."""
    ranges: list[list[int]] = []
    for line in lines:
        if ranges and ranges[-1][1] == line - 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return ", ".join(words[:_NAMED]) + (", …" if len(words) > _NAMED else "")


def to_json(covers: Sequence[FileCover], touched: Names, base: str, patch: str) -> dict[str, Any]:
    """Return the coverage as JSON.

    :param touched: the functions that the queue touches.
    :param patch: label of the step.
    """
    files = []
    for cover in covers:
        functions = [
            {
                "name": each.name,
                "line": each.line,
                "touched": (cover.path, each.name) in touched,
                **_totals([each]),
                "missed": list(each.missed),
                "one_way": list(each.half),
            }
            for each in cover.functions or ()
        ]
        files.append(
            {
                "file": cover.path,
                "built": cover.functions is not None,
                **_totals(cover.functions or ()),
                "functions": functions,
            }
        )
    return {"format": JSON_FORMAT, "base": base, "patch": patch, "files": files}
