# SPDX-License-Identifier: GPL-2.0-only
"""Splats in console logs, and the tests that they fell in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consolelogs import read_lines
from iommuq.results.console import splats
from iommuq.results.console.ktap import parse
from iommuq.results.console.splats import (
    Expected,
    Rule,
    attribute,
    expected,
    fail_cases,
    find,
    load_rules,
)
from iommuq.results.store import Status
from iommuq.system.errors import InfraError

DATA = Path(__file__).parents[2] / "data"

# Consoles of real kernels; data/splats/README tells how they came about.  By log: kind,
# first line, and how the title begins, of each splat.
REAL = {
    "warn": [("WARNING", 7, "WARNING: CPU: 1 PID: 35 at lib/provoke.c:19 warn+0x5/0x8")],
    "bug": [("BUG", 7, "kernel BUG at lib/provoke.c:24!")],
    "oops": [("Oops", 7, "BUG: kernel NULL pointer dereference, address: 0000000000000028")],
    "general-protection": [("general protection fault", 7, "Oops: general protection fault, ")],
    "kasan": [("KASAN", 8, "BUG: KASAN: slab-use-after-free in kasan_use_after_free+0xbb")],
    "lockdep-circular": [("lockdep", 9, "WARNING: possible circular locking dependency")],
    "lockdep-wait": [("lockdep", 9, "[ BUG: Invalid wait context ]")],
    "atomic-sleep": [
        ("atomic sleep", 7, "BUG: sleeping function called from invalid context at kernel"),
        ("lockdep", 48, "[ BUG: Invalid wait context ]"),
    ],
    "rcu-stall": [("RCU stall", 8, "rcu: INFO: rcu_preempt self-detected stall on CPU")],
    "hung-task": [
        ("hung task", 7, "INFO: task swapper/0:1 blocked for more than 4 seconds."),
        ("hung task", 52, "INFO: task kunit_try_catch:36 blocked for more than 4 seconds."),
        ("hung task", 84, "INFO: task never-done:37 blocked for more than 4 seconds."),
        ("hung task", 121, "INFO: task swapper/0:1 blocked for more than 8 seconds."),
        ("hung task", 166, "INFO: task kunit_try_catch:36 blocked for more than 8 seconds."),
        ("hung task", 198, "INFO: task never-done:37 blocked for more than 8 seconds."),
    ],
    "soft-lockup": [
        ("soft lockup", 7, "watchdog: BUG: soft lockup - CPU#0 stuck for 3s!"),
        ("soft lockup", 43, "watchdog: BUG: soft lockup - CPU#0 stuck for 6s!"),
        ("RCU stall", 79, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    ],
    "kmemleak": [
        ("kmemleak", 13, "kmemleak: 10 new suspected memory leaks"),
        *(("kmemleak", 14 + 15 * number, "unreferenced object 0x") for number in range(6)),
    ],
    "ubsan": [("UBSAN", 7, "UBSAN: array-index-out-of-bounds in lib/provoke.c:136:7")],
    "refcount": [("refcount", 7, "refcount_t: decrement hit 0; leaking memory.")],
    "panic": [("panic", 7, "Kernel panic - not syncing: provoked")],
    "none": [],
}

# Written after the sources of the kernel: what is not easily provoked, and other kernels.
WRITTEN = {
    "warn-uml": [("WARNING", 1, "WARNING: CPU: 0 PID: 26 at drivers/iommu/iommu.c:2251")],
    "warn-7.3": [("WARNING", 1, "WARNING: drivers/iommu/amd/iommu.c:2480 at amd_iommu_rel")],
    "rcu-usage": [("lockdep", 2, "WARNING: suspicious RCU usage")],
    "hard-lockup": [("hard lockup", 1, "watchdog: Watchdog detected hard LOCKUP on cpu 1")],
    "panic-uml": [("panic", 1, "Kernel panic - not syncing: Kernel mode fault at addr 0x28")],
    "slub": [("BUG", 2, "BUG kmalloc-1k (Tainted: G    B   W        N): Poison overwritten")],
    "cut-short": [("unknown", 2, "[ cut here ]")],
}
LOGS = {
    **{DATA / "splats" / f"{name}.log": splats for name, splats in REAL.items()},
    **{DATA / f"splat-{name}.log": splats for name, splats in WRITTEN.items()},
}


def real(name: str) -> list[str]:
    return read_lines(DATA / "splats" / f"{name}.log")


def test_every_saved_log_is_in_the_table() -> None:
    assert {*DATA.glob("splat-*.log"), *DATA.glob("splats/*.log")} == LOGS.keys()


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_saved_log(path: Path) -> None:
    found = find(read_lines(path))
    assert [(splat.kind, splat.start_line) for splat in found] == [
        (kind, line) for kind, line, _ in LOGS[path]
    ]
    for splat, (_, _, title) in zip(found, LOGS[path], strict=True):
        assert splat.title.startswith(title)


@pytest.mark.parametrize("name", REAL)
def test_stamps_make_no_difference(name: str) -> None:
    """The same report from a kernel without CONFIG_PRINTK_TIME, and with the caller's id."""
    lines = [re.sub(r"^\[ *[\d.]+\] ", "", line) for line in real(name)]
    kinds = [kind for kind, _, _ in REAL[name]]
    assert [splat.kind for splat in find(lines)] == kinds
    assert [splat.kind for splat in find(f"[   48.100111][  T133] {x}" for x in lines)] == kinds


@pytest.mark.parametrize("name", REAL)
def test_cut_log(name: str) -> None:
    """Wherever the console ends, what began before is found, and nothing else is."""
    lines = real(name)
    for end in range(len(lines)):
        begun = sum(line <= end for _, line, _ in REAL[name])
        # "cut here" and a ruler come before the line that tells what it is.
        assert begun - 1 <= len(find(lines[:end])) <= begun + 1


@pytest.mark.parametrize("name", sorted(REAL.keys() - {"none", "panic", "kmemleak"}))
def test_splat_of_a_real_kernel_fails_its_case(name: str) -> None:
    lines = real(name)
    judged, loose = fail_cases(parse(lines), find(lines))
    assert [case.status for case in judged.tests] == [Status.FAIL]
    assert loose == ()


def test_leaks_are_found_outside_of_all_cases() -> None:
    """Userspace has kmemleak scan, long after the case that leaked."""
    lines = real("kmemleak")
    judged, loose = fail_cases(parse(lines), find(lines))
    assert [case.status for case in judged.tests] == [Status.PASS]
    assert len(loose) == len(REAL["kmemleak"])


def test_panic_in_the_middle_of_ktap() -> None:
    judged, loose = fail_cases(parse(real("panic")), find(real("panic")))
    assert [(case.status, case.crashed) for case in judged.tests] == [(Status.FAIL, True)]
    assert judged.tests[0].message.startswith("panic: Kernel panic - not syncing: provoked")
    assert loose == ()


def test_text_is_the_whole_report_and_no_more() -> None:
    (splat,) = find(real("warn"))
    lines = splat.text.splitlines()
    assert lines[0] == "------------[ cut here ]------------"
    assert lines[-1] == "---[ end trace 0000000000000000 ]---"
    (splat,) = find(real("kasan"))
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
    for path in sorted(LOGS, key=lambda path: path.stem == "splat-cut-short"):
        lines += read_lines(path)
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
        (None, "No such file or directory (without splat rules no splat is found)"),
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


@pytest.mark.parametrize(("promises", "status"), [(1, "fail"), (2, "pass"), (3, "fail")])
def test_promise_is_of_one_splat(promises: int, status: str) -> None:
    """Where a test says how often, that often it is."""
    start, end = LOG.index("------------[ cut"), LOG.index("---[ end trace")
    end = LOG.index("\n", end) + 1
    said = "    # expects splat: WARNING\n" * promises
    lines = (LOG[:start] + said + LOG[start:end] * 2 + LOG[end:]).splitlines()
    report, _ = fail_cases(parse(lines), find(lines), expected(lines))
    assert {case.name: case.status.value for case in report.tests}["s.warns"] == status


def test_exact_promise_is_kept_first() -> None:
    """A splat that one promise names is not taken by one that names none."""
    both = "# expects splat: WARNING\n    # expects splat: WARNING: f+0x6c"
    start, end = LOG.index("------------[ cut"), LOG.index("---[ end trace")
    end = LOG.index("\n", end) + 1
    other = LOG[start:end].replace("f+0x6c", "g+0x1")
    lines = (LOG[:start] + f"    {both}\n" + LOG[start:end] + other + LOG[end:]).splitlines()
    report, _ = fail_cases(parse(lines), find(lines), expected(lines))
    assert {case.name: case.status.value for case in report.tests}["s.warns"] == "pass"


def test_promise_is_read_whole() -> None:
    lines = ["", "    # a_case: expects splat: soft lockup: stuck for: ever  "]
    assert expected(lines) == [Expected("soft lockup", "stuck for: ever", 2)]
