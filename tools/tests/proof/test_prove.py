# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.proof.prove`: what a table of verdicts amounts to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from iommuq.proof.matrix import Column, build
from iommuq.proof.prove import Outcome, Proof
from iommuq.queue.steps import Step
from iommuq.results.known import Verdict
from iommuq.system.errors import VerdictError

OK, FAILED, KNOWN, ERROR = Verdict.OK, Verdict.FAILED, Verdict.KNOWN, Verdict.ERROR


def proof(*columns: Mapping[str, Verdict] | VerdictError, warnings: tuple[str, ...] = ()) -> Proof:
    """Make a proof of a baseline and patches; an error is a step that does not build."""
    outcomes, made = [], []
    for number, column in enumerate(columns):
        step = Step(f"{number:04}" if number else "baseline", None, "c", "t")
        failure = column if isinstance(column, VerdictError) else None
        verdicts = {} if isinstance(column, VerdictError) else dict(column)
        added = warnings if number == len(columns) - 1 else ()
        outcomes.append(Outcome(step, "kunit", None, failure, verdicts, added))
        made.append(Column(step.label, "", verdicts, "does not build" if failure else ""))
    return Proof(tuple(outcomes), build(made))


@pytest.mark.parametrize(
    ("made", "findings", "code"),
    [
        (proof({"a": OK}, {"a": OK}), [], 0),
        # Tests that the queue fixes may fail before.
        (proof({"a": FAILED}, {"a": OK}), [], 0),
        (proof({"a": KNOWN}, {"a": KNOWN}), [], 0),
        (proof({"a": Verdict.SKIPPED}, {"a": OK}), [], 0),
        (proof({"a": FAILED}, {"a": FAILED}), ["a fails with the whole queue applied"], 1),
        (proof({"a": OK}, {"a": FAILED}), ["0001 breaks a"], 1),
        # Even if a later patch fixes it: each step must pass.
        (proof({"a": OK}, {"a": FAILED}, {"a": OK}), ["0001 breaks a"], 1),
        (proof({"a": OK}, {"a": KNOWN}), ["0001 breaks a"], 1),
        (proof({"a": OK}, VerdictError("no"), {"a": OK}), ["0001: no"], 1),
        (
            proof({"a": OK}, VerdictError("no"), {"a": FAILED}),
            ["0001: no", "0002 breaks a, compared with baseline"],
            1,
        ),
        (proof({"a": OK}, VerdictError("no"), VerdictError("no")), ["0001: no", "0002: no"], 1),
        # A test that is gone, or renamed, or skipped from here on, is no proof any more.
        (proof({"a": OK}, {"b": OK}), ["0001: passed before, not run now: 1 (a)"], 1),
        (
            proof({"a": OK, "b": OK}, {"a": Verdict.SKIPPED}),
            ["0001: passed before, not run now: 2 (a, b)"],
            1,
        ),
        (
            proof({"a": OK}, VerdictError("no"), {"b": OK}),
            ["0001: no", "0002: passed before, not run now: 1 (a), compared with baseline"],
            1,
        ),
        (proof({"a": FAILED}, {"b": OK}), [], 0),
        # A lost guest gives no verdict.
        (proof({"a": OK}, {"b": ERROR}), [], 3),
        (proof({"a": Verdict.UNEXPECTED_PASS}, {"a": OK}), ["baseline: a: unexpected pass"], 1),
        (proof({"a": KNOWN}, {"a": Verdict.EXPIRED}), ["0001: a: expired"], 1),
        (proof({"a": OK}, {"a": OK}, warnings=("x.c: w",)), ["0001 adds a warning: x.c: w"], 1),
        # An error is no verdict: it neither breaks nor fixes.
        (proof({"a": OK}, {"a": ERROR}, {"a": OK}), [], 3),
        (proof({"a": FAILED}, {"a": ERROR}), [], 3),
        (proof({"a": OK, "b": ERROR}, {"a": FAILED, "b": OK}), ["0001 breaks a"], 1),
    ],
)
def test_findings(made: Proof, findings: list[str], code: int) -> None:
    assert made.findings == findings
    assert made.exit_code == code


def test_errors_are_named() -> None:
    assert proof({"a": ERROR}, {"a": OK}).errors == ["baseline: a: no verdict"]
