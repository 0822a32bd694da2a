# SPDX-License-Identifier: GPL-2.0-only
"""Splats in console logs, and the tests that they fell in."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq import splats
from iommuq.errors import InfraError
from iommuq.ktap import parse
from iommuq.logtext import read_lines
from iommuq.results import Status
from iommuq.splats import Expected, Rule, attribute, expected, fail_cases, find, load_rules

DATA = Path(__file__).parent / "data"

# By log: kind, first line, and how the title begins, of each splat.
LOGS = {
    "warn": [("WARNING", 2, "WARNING: CPU: 1 PID: 61 at drivers/iommu/iommu.c:2251")],
    "warn-uml": [("WARNING", 1, "WARNING: CPU: 0 PID: 26 at drivers/iommu/iommu.c:2251")],
    "warn-7.3": [("WARNING", 1, "WARNING: drivers/iommu/amd/iommu.c:2480 at amd_iommu_rel")],
    "bug": [("BUG", 1, "kernel BUG at drivers/iommu/iommu.c:633!")],
    "oops": [
        ("Oops", 1, "BUG: kernel NULL pointer dereference"),
        ("panic", 15, "Kernel panic - not syncing: Fatal exception"),
    ],
    "gpf": [("general protection fault", 1, "Oops: general protection fault, probably for")],
    "kasan": [("KASAN", 2, "BUG: KASAN: slab-use-after-free in detach_device+0x4c/0x2e0")],
    "lockdep-circular": [("lockdep", 3, "WARNING: possible circular locking dependency")],
    "lockdep-wait": [("lockdep", 2, "[ BUG: Invalid wait context ]")],
    "rcu-usage": [("lockdep", 2, "WARNING: suspicious RCU usage")],
    "rcu-stall": [("RCU stall", 1, "rcu: INFO: rcu_preempt detected stalls")],
    "hung": [("hung task", 1, "INFO: task bash:133 blocked for more than 120 seconds.")],
    "soft-lockup": [("soft lockup", 1, "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!")],
    "hard-lockup": [("hard lockup", 1, "watchdog: Watchdog detected hard LOCKUP on cpu 1")],
    "kmemleak": [
        ("kmemleak", 1, "kmemleak: 2 new suspected memory leaks"),
        ("kmemleak", 2, "unreferenced object 0xffff888006a1c000"),
    ],
    "ubsan": [("UBSAN", 1, "UBSAN: array-index-out-of-bounds in drivers/iommu/iommu.c")],
    "refcount": [("refcount", 1, "refcount_t: underflow; use-after-free.")],
    "atomic": [("atomic sleep", 1, "BUG: sleeping function called from invalid context")],
    "panic-uml": [("panic", 1, "Kernel panic - not syncing: Kernel mode fault at addr 0x28")],
    "slub": [("BUG", 2, "BUG kmalloc-1k (Tainted: G    B   W        N): Poison overwritten")],
    "cut-short": [("unknown", 2, "[ cut here ]")],
    "none": [],
}


def test_every_saved_log_is_in_the_table() -> None:
    saved = {path.stem.removeprefix("splat-") for path in DATA.glob("splat-*.log")}
    assert saved == LOGS.keys()


@pytest.mark.parametrize("name", LOGS)
def test_saved_log(name: str) -> None:
    lines = read_lines(DATA / f"splat-{name}.log")
    found = find(lines)
    assert [(splat.kind, splat.start_line) for splat in found] == [
        (kind, line) for kind, line, _ in LOGS[name]
    ]
    for splat, (_, _, title) in zip(found, LOGS[name], strict=True):
        assert splat.title.startswith(title)


STAMPED = sorted(LOGS.keys() - {"warn-uml", "panic-uml", "none", "kmemleak", "cut-short"})


@pytest.mark.parametrize("name", STAMPED)
def test_stamps_make_no_difference(name: str) -> None:
    """The same report from a kernel without CONFIG_PRINTK_TIME, and with the caller's id."""
    lines = [line.partition("] ")[2] for line in read_lines(DATA / f"splat-{name}.log")]
    kinds = [kind for kind, _, _ in LOGS[name]]
    assert [splat.kind for splat in find(lines)] == kinds
    assert [splat.kind for splat in find(f"[   48.100111][  T133] {x}" for x in lines)] == kinds


def test_text_is_the_whole_report_and_no_more() -> None:
    (splat,) = find(read_lines(DATA / "splat-warn.log"))
    lines = splat.text.splitlines()
    assert lines[0] == "------------[ cut here ]------------"
    assert lines[-1] == "---[ end trace 0000000000000000 ]---"
    (splat,) = find(read_lines(DATA / "splat-kasan.log"))
    assert splat.text.splitlines()[-1].startswith("=====")


def test_report_of_one_line_takes_no_other() -> None:
    title = "kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
    (splat,) = find([title, "iommu: Adding device mock0 to group 0"])
    assert splat.text == title


def test_endless_report_is_cut() -> None:
    lines = ["BUG: soft lockup - CPU#0 stuck", *["Call Trace:"] * 10_000]
    (splat,) = find(lines)
    assert len(splat.text.splitlines()) == splats.MAX_LINES


def test_all_logs_on_one_console() -> None:
    """No report hides the one after it."""
    lines: list[str] = []
    for name in sorted(LOGS, key=lambda name: name == "cut-short"):
        lines += read_lines(DATA / f"splat-{name}.log")
    assert len(find(lines)) == sum(map(len, LOGS.values()))


# Rules.


@pytest.mark.parametrize("number", range(len(load_rules())))
def test_example_gets_its_own_rule(number: int) -> None:
    rules = load_rules()
    first = next(rule for rule in rules if rule.regex.match(rules[number].example))
    assert first is rules[number]


@pytest.mark.parametrize("rule", load_rules(), ids=lambda rule: rule.kind)
def test_example_is_a_splat_of_its_kind(rule: Rule) -> None:
    assert [splat.kind for splat in find([rule.example])] == [rule.kind]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory (without splat rules every kernel looks sound)"),
        ("", "has no [[rule]]"),
        ("rule = 1", "has no [[rule]]"),
        ("[[rule]", "Expected"),
        ("[[rule]]\nkind = 'x'", "rule 1: 'regex'"),
        ("[[rule]]\nkind = 'x'\nregex = '('\nexample = ''", "rule 1: missing )"),
        ("[[rule]]\nkind = 'x'\nregex = 'a'\nexample = ''\ntypo = 1", "rule 1: "),
        ("[[rule]]\nkind = 'x'\nregex = 3\nexample = ''", "rule 1: "),
    ],
)
def test_bad_rules_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "splats.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InfraError) as caught:
        load_rules(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_rules_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "splats.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InfraError, match="utf-8"):
        load_rules(tmp_path / "splats.toml")


def test_missing_rules_fail_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(splats.load_rules, "__defaults__", (tmp_path / "gone.toml",))
    splats._default_rules.cache_clear()
    with pytest.raises(InfraError, match=r"gone\.toml"):
        find(["all is well"])
    monkeypatch.undo()
    assert find(["all is well"]) == []


# Tests that a splat fell in.

WARNING = "WARNING: CPU: 0 PID: 26 at drivers/iommu/iommu.c:2251 f+0x6c/0x7b"
LOG = f"""\
BUG: KASAN: slab-use-after-free in early_boot+0x1/0x2
KTAP version 1
1..1
    # Subtest: s
    1..3
    ok 1 quiet
------------[ cut here ]------------
{WARNING}
---[ end trace 0000000000000000 ]---
    ok 2 warns
    ok 3 after
ok 1 s
kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
reboot: System halted
"""


def test_splat_fails_the_test_it_fell_in() -> None:
    lines = LOG.splitlines()
    report = parse(lines)
    assert report.count(Status.PASS) == 3
    judged, loose = fail_cases(report, find(lines))
    assert {case.name: case.status.value for case in judged.tests} == {
        "s.quiet": "pass",
        "s.warns": "fail",
        "s.after": "pass",
    }
    assert judged.tests[1].message == f"WARNING: {WARNING}"
    assert [splat.kind for splat in loose] == ["KASAN", "kmemleak"]


def test_attribute_names_the_case() -> None:
    lines = LOG.splitlines()
    cases = [case for _, case in attribute(parse(lines), find(lines))]
    assert [case.name if case else None for case in cases] == [None, "s.warns", None]


def test_kernel_that_died_with_a_splat_is_a_failure() -> None:
    """What follows in the suite stays an error: it was not run."""
    lines = read_lines(DATA / "kunit-panic.log")
    judged, loose = fail_cases(parse(lines), find(lines))
    assert loose == ()
    statuses = {case.name: case.status.value for case in judged.tests}
    assert statuses["iommu_set_domain.#2"] == "fail"
    assert statuses["iommu_set_domain.#3"] == "error"
    message = judged.tests[1].message.splitlines()
    assert message[0] == "Oops: BUG: kernel NULL pointer dereference, address: 0000000000000028"
    assert message[1] == "panic: Kernel panic - not syncing: Fatal exception"


# Splats that a test says it will provoke.


def judged(promise: str) -> dict[str, str]:
    """Judge the log above with a line added to the case that warns."""
    lines = LOG.replace("------------[ cut", f"    {promise}\n------------[ cut").splitlines()
    report, loose = fail_cases(parse(lines), find(lines), expected(lines))
    assert [splat.kind for splat in loose] == ["KASAN", "kmemleak"]
    return {case.name: case.status.value for case in report.tests}


@pytest.mark.parametrize(
    "promise",
    [
        "# warns: expects splat: WARNING",
        "# warns: expects splat: WARNING: drivers/iommu/iommu.c:2251",
        "# expects splat: WARNING: f+0x6c",
    ],
)
def test_expected_splat_fails_nothing(promise: str) -> None:
    assert set(judged(promise).values()) == {"pass"}


@pytest.mark.parametrize(
    "promise",
    [
        "# warns: expects splat: KASAN",
        "# warns: expects splat: WARNING: somewhere else",
        "# warns: expects splat:",
        "warns: expects splat: WARNING",
    ],
)
def test_other_promise_forgives_nothing(promise: str) -> None:
    assert judged(promise)["s.warns"] == "fail"


def test_promise_holds_for_its_own_case_alone() -> None:
    lines = LOG.replace("    ok 1", "    # expects splat: WARNING\n    ok 1").splitlines()
    report, _ = fail_cases(parse(lines), find(lines), expected(lines))
    assert [case.status.value for case in report.tests] == ["fail", "fail", "pass"]
    assert report.tests[0].message.startswith("expected splat did not come: WARNING")


def test_promise_is_read_whole() -> None:
    lines = ["", "    # a_case: expects splat: soft lockup: stuck for: ever  "]
    assert expected(lines) == [Expected("soft lockup", "stuck for: ever", 2)]
