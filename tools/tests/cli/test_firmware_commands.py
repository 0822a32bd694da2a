# SPDX-License-Identifier: GPL-2.0-only
"""What ``iommuq firmware`` prints, exits with, and writes to docs/generated/exposure.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

import commandcall
from firmwareguests import made_run
from iommuq.cli.commands import firmware
from iommuq.cli.main import cli
from iommuq.firmware import packages, scenario
from iommuq.firmware.kernels import Kernel
from iommuq.report import exposure
from iommuq.report.exposure import Column, Filled, load_columns, render
from iommuq.results.store import Status, SuiteRun
from iommuq.suites.firmware import subjects
from iommuq.suites.firmware.cases import Case, cases
from iommuq.suites.kunit import Subject
from iommuq.system.errors import UserError

KERNEL = Kernel("k", "6.1.0-toy", "6.1-1", Path("/x"), (), None, "key")


@pytest.fixture
def special(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Status, str]]:
    """Return the checks that do not pass; nothing is booted."""
    found: dict[str, tuple[Status, str]] = {}

    def run(
        kernel: Kernel, wanted: Sequence[Case], subject: Subject, *, again: bool = False
    ) -> list[SuiteRun]:
        assert kernel == KERNEL
        assert not again
        return [made_run(case, subject, found) for case in wanted]

    monkeypatch.setattr(subjects, "run_scenarios", run)
    monkeypatch.setattr(packages, "find", lambda _text: KERNEL)
    return found


def call(*words: str) -> int:
    usual = {"at": None, "again": False, "no_known": False, "full": False, "as_json": False}
    code = commandcall.call(firmware.run, words, kernel="k", on=("q35-amd",), **usual)
    assert isinstance(code, int)
    return code


def test_all_is_well(
    special: dict[str, tuple[Status, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    special.clear()
    assert call("claim-group", "claim-idle") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Linux 6.1.0-toy (6.1-1), firmware scenarios under QEMU (tcg)"
    # One row for each scenario that passes.
    assert [line.split() for line in lines[2:4]] == [
        ["claim-group", "pass"],
        ["claim-idle", "pass"],
    ]
    assert lines[-1].startswith("PASS: ")
    assert lines[-1].endswith(": 17 pass")


def test_an_exposure(
    special: dict[str, tuple[Status, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    special["claim_refused"] = (Status.FAIL, "ok, and not EINVAL\x1b[0m\nmore")
    assert call("claim-group") == 1
    out = capsys.readouterr().out
    assert (
        "FAIL            q35-amd.claim-group.claim_refused\n    ok, and not EINVAL\\x1b[0m" in out
    )
    assert "\x1b" not in out
    # Then its checks are all there.
    assert "  region_is_direct" in out
    assert "FAIL: " in out
    assert ": 9 pass, 1 FAIL" in out


def test_errors_are_no_verdict(
    special: dict[str, tuple[Status, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for check in ("claim_refused", "no_splat"):
        special[check] = (Status.ERROR, "guest lost")
    assert call("claim-group") == 3
    # The same reason is given once.
    assert capsys.readouterr().out.count("guest lost") == 1


def test_nothing_but_skips_is_not_green(special: dict[str, tuple[Status, str]]) -> None:
    for check in scenario.load_scenario("claim-cdev").checks():
        special[check] = (Status.SKIP, "built without IOMMUFD")
    with pytest.raises(UserError, match="no scenario can be tested: built without IOMMUFD"):
        call("claim-cdev")
    assert call("claim-cdev", "claim-group") == 0


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (("nosuch",), {"kernel": "k"}, "no scenario 'nosuch'"),
        (("nosuch",), {"kernel": None}, "'nosuch' is neither a base nor a scenario"),
        (("claim-group",), {"kernel": "k", "at": "0001"}, "--at and --kernel exclude each other"),
        (("no-iommu",), {"kernel": "k"}, "none of these scenarios is for q35-amd"),
        ((), {"kernel": "k", "on": ("q36",)}, "no machine 'q36'"),
    ],
)
def test_a_mistake(
    special: dict[str, tuple[Status, str]],
    words: tuple[str, ...],
    options: dict[str, str],
    said: str,
) -> None:
    special.clear()
    usual = {"at": None, "again": False, "no_known": False, "full": False, "as_json": False}
    with pytest.raises(UserError, match=said):
        commandcall.call(firmware.run, words, **{"on": ("q35-amd",), **usual, **options})


def test_run_is_the_command_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def run(*, words: tuple[str, ...], at: str | None, kernel: str | None, **_: object) -> int:
        seen.append((words, at, kernel))
        return 0

    monkeypatch.setattr(firmware.run, "callback", run)
    for argv in (
        ["firmware"],
        ["firmware", "claim-group"],
        ["firmware", "6.12", "--at", "0001", "claim-group"],
        ["firmware", "--kernel", "k", "claim-group"],
        ["firmware", "run", "--kernel", "k"],
    ):
        assert CliRunner().invoke(cli, argv, catch_exceptions=False).exit_code == 0
    assert seen == [
        ((), None, None),
        (("claim-group",), None, None),
        (("6.12", "claim-group"), "0001", None),
        (("claim-group",), None, "k"),
        ((), None, "k"),
    ]


def test_the_list_has_every_scenario_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    commandcall.call(firmware.list_)
    lines = capsys.readouterr().out.splitlines()
    for name in scenario.names():
        assert sum(line.startswith(f"{name} ") for line in lines) == 1


def test_our_columns_are_well_formed() -> None:
    assert {bool(column.package) for column in load_columns()} == {True, False}


@pytest.mark.parametrize(
    "fields", [{}, {"package": "p", "base": "6.12"}, {"package": "p", "at": "0001"}]
)
def test_a_column_is_of_one_kind(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"package|base"):
        Column("x", **fields)


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "note", lambda _text: None)
    chosen = cases(scenario.choose(["claim-cdev", "claim-group", "claim-idle"]), ["q35-amd"])
    subject = Subject("k", "as-is", "6.1.0-toy")
    failing = {
        "claim_refused": (Status.FAIL, "`claim group marked`: ok | <b>, and not EINVAL"),
        "no_splat": (
            Status.FAIL,
            "WARNING: CPU: 0 PID: 9 at x\nRIP: 1\nWARNING: y at f, CPU#1: a/9",
        ),
    }
    reason = "6.1.0-toy is built without IOMMUFD"
    skipping = dict.fromkeys(chosen[0].scenario.checks(), (Status.SKIP, reason))
    runs = (
        made_run(chosen[0], subject, skipping),
        made_run(chosen[1], subject, failing),
        made_run(chosen[2], subject),
    )
    columns = [Filled("Old", "Linux 6.1", runs), Filled("New", "", (None, None, None))]
    page = render(chosen, columns, "version 7.2.0")
    assert "| scenario | Old | New |\n|---|---|---|" in page
    assert "| claim-cdev | skipped: built without IOMMUFD | not run |" in page
    assert "| claim-group | **FAILS** | not run |" in page
    assert "| claim-idle | holds | not run |" in page
    assert "- Old: Linux 6.1, 2001-09-09\n- New: not run yet\n- QEMU 7.2.0, tcg" in page
    assert "  - claim_refused: `claim group marked`: ok \\| &lt;b>, and not EINVAL" in page
    assert "  - no_splat: WARNING: x; WARNING: y at f" in page
    assert "### claim-idle" in page
