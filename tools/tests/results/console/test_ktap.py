# SPDX-License-Identifier: GPL-2.0-only
"""KTAP out of whole, broken and hostile logs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolelogs import read_lines
from iommuq.results.console import ktap, ktaplines, splats, stacks
from iommuq.results.console.ktap import Case, Report, parse
from iommuq.results.store import Status
from iommuq.system.logtext import clean_line, split_stamp

DATA = Path(__file__).parents[2] / "data"


def parse_file(name: str) -> Report:
    return parse(read_lines(DATA / name))


def parse_text(text: str) -> Report:
    return parse(text.splitlines())


def statuses(report: Report) -> dict[str, str]:
    return {case.name: case.status.value for case in report.tests}


def case_of(report: Report, name: str) -> Case:
    return next(case for case in report.tests if case.name == name)


# Whole logs.


def test_kunit_under_uml() -> None:
    report = parse_file("kunit-uml.log")
    assert report.problems == ()
    assert statuses(report) == {
        "iommu_set_domain.identity_allowed": "pass",
        "iommu_set_domain.blocked_refused": "fail",
        "iommu_set_domain.region_types.relaxable": "pass",
        "iommu_set_domain.region_types.msi": "pass",
        "iommu_set_domain.region_types.reserved": "fail",
        "iommu_set_domain.deferred_attach": "skip",
        "iommu_ownership.claim_and_release": "pass",
    }


def test_failed_expectation_is_the_message_without_console_lines() -> None:
    report = parse_file("kunit-uml.log")
    assert case_of(report, "iommu_set_domain.blocked_refused").message == (
        "# blocked_refused: EXPECTATION FAILED at drivers/iommu/tests/iommu_kunit.c:142\n"
        "Expected ret == -22, but\n"
        "    ret == 0 (0x0)\n"
        "\n"
        "device with a DIRECT region was blocked"
    )
    assert case_of(report, "iommu_set_domain.region_types.reserved").message.endswith(
        "Expected group->require_direct == 0, but\n    group->require_direct == 1 (0x1)"
    )
    assert case_of(report, "iommu_set_domain.identity_allowed").message == ""


def test_skip_has_its_reason_and_runtime() -> None:
    case = case_of(parse_file("kunit-uml.log"), "iommu_set_domain.deferred_attach")
    assert case.message.startswith("needs CONFIG_PCI\n")
    assert case.duration == 2.5


def test_line_range_reaches_from_the_last_result_to_its_own() -> None:
    report = parse_file("kunit-uml.log")
    lines = read_lines(DATA / "kunit-uml.log")
    case = case_of(report, "iommu_set_domain.blocked_refused")
    assert lines[case.first - 1] == "mock-bus: registered"
    assert lines[case.last - 1].strip() == "not ok 2 blocked_refused"


def test_stamped_log() -> None:
    report = parse_file("kunit-qemu-stamped.log")
    assert report.problems == ()
    first, second = report.tests
    assert (first.name, first.status) == ("iommu_set_domain.identity_allowed", Status.PASS)
    assert first.duration == pytest.approx(0.00718)
    assert second.duration == pytest.approx(0.25)
    assert second.message.splitlines()[1:] == ["Expected ret == -22, but", "    ret == 0 (0x0)"]


def test_kselftest() -> None:
    report = parse_file("kselftest-iommufd.log")
    assert report.problems == ()
    assert statuses(report) == {
        "global.simple_close": "pass",
        "iommufd_ioas.mock_domain.copy_area": "fail",
        "iommufd_mock_domain.one_domain_hugepage.all_aligns": "skip",
        "global.expected": "skip",
        "dmabuf": "skip",
        "global.last": "pass",
    }
    assert case_of(report, "global.expected").message == "XFAIL: known upstream"
    assert case_of(report, "iommufd_ioas.mock_domain.copy_area").message.startswith(
        "# iommufd.c:512:copy_area:Expected 0 (0) == ioctl"
    )


# Logs that break off.


def test_panic_in_a_case() -> None:
    report = parse_file("kunit-panic.log")
    crashed = case_of(report, "iommu_set_domain.#2")
    assert crashed.crashed
    assert crashed.status is Status.ERROR
    assert crashed.message.startswith("the kernel died in or after identity_allowed\n")
    assert "EXPECTATION FAILED" in crashed.message
    assert crashed.last == len(read_lines(DATA / "kunit-panic.log"))
    assert statuses(report) == {
        "iommu_set_domain.identity_allowed": "pass",
        "iommu_set_domain.#2": "error",
        "iommu_set_domain.#3": "error",
        "iommu_set_domain.#4": "error",
        "#2": "error",
        "#3": "error",
    }
    assert [case.name for case in report.tests if case.crashed] == ["iommu_set_domain.#2"]


def test_killed_kselftest_names_the_case_that_ran() -> None:
    report = parse_file("kselftest-killed.log")
    assert statuses(report) == {
        "global.one": "pass",
        "global.two": "error",
        "#3": "error",
        "#4": "error",
        "#5": "error",
    }
    case = case_of(report, "global.two")
    assert case.message == "the log ends in or after global.one\n# iommufd.c:99:two:attaching"
    assert report.problems == ("line 8: 5 tests planned, 1 seen",)


@pytest.mark.parametrize("name", ["kunit-uml.log", "kselftest-iommufd.log"])
def test_cut_anywhere_nothing_passes_that_did_not(name: str) -> None:
    """Of a log cut after any byte, a pass is one of the whole log, or there is an error."""
    data = (DATA / name).read_bytes()
    whole = statuses(parse_file(name))
    for end in range(data.index(b"1..") + 5, data.rindex(b"ok "), 7):
        text = data[:end].decode("utf-8", "backslashreplace")
        report = parse(text.split("\n"))
        passed = {case.name for case in report.tests if case.status is Status.PASS}
        assert passed <= {test for test, status in whole.items() if status == "pass"}
        assert report.count(Status.ERROR) > 0


def test_panic_without_a_plan_is_an_error() -> None:
    report = parse_text("TAP version 13\nok 1 a\nKernel panic - not syncing: Fatal exception\n")
    assert statuses(report) == {"a": "pass", "#end": "error"}


def test_panic_after_the_last_result_is_none_of_ours() -> None:
    report = parse_text("TAP version 13\n1..1\nok 1 a\nKernel panic - not syncing: VFS: x\nok 2 b")
    assert statuses(report) == {"a": "pass"}
    assert report.problems == ()


def test_suite_that_dies_at_its_end() -> None:
    report = parse_text("KTAP version 1\n1..1\n    # Subtest: s\n    1..1\n    ok 1 a\nBUG\n")
    assert statuses(report) == {"s.a": "pass", "s": "error"}
    assert report.problems == ("line 6: s: has no result",)


def test_lost_suite_result_in_the_middle() -> None:
    report = parse_text(
        "KTAP version 1\n1..2\n    # Subtest: s\n    1..2\n    ok 1 a\n"
        "    # Subtest: t\n    1..1\n    ok 1 b\nok 2 t\n"
    )
    assert statuses(report) == {"s.a": "pass", "s.#2": "error", "t.b": "pass"}
    assert not any(case.crashed for case in report.tests)
    assert "the result is missing in or after a" in case_of(report, "s.#2").message


# Plans and numbers.


@pytest.mark.parametrize(
    ("body", "expected", "problem"),
    [
        ("1..3\nok 1 a\nok 3 c", {"a": "pass", "c": "error", "#2": "error"}, "expected number 2"),
        (
            "1..3\nok 1 a\nok 3 c\n# end",
            {"a": "pass", "c": "pass", "#2": "error"},
            "3 tests planned, 2 seen",
        ),
        ("1..1\nok 1 a\nok 2 b\n# end", {"a": "pass", "b": "pass"}, "1 tests planned, 2 seen"),
        ("ok 1 a\nok 2 b\n1..2", {"a": "pass", "b": "pass"}, None),
        ("ok 1 a\nok 2 b", {"a": "pass", "b": "pass"}, None),
        ("1..2\n1..5\nok 1 a\nok 2 b", {"a": "pass", "b": "pass"}, "belongs to no test"),
        ("1..0 # SKIP no /dev/iommu", {"all": "skip"}, None),
        ("1..0", {}, "no tests were run"),
        ("", {}, "no tests were run"),
    ],
)
def test_plan(body: str, expected: dict[str, str], problem: str | None) -> None:
    report = parse_text("KTAP version 1\n" + body)
    assert statuses(report) == expected
    if problem is None:
        assert report.problems == ()
    else:
        assert problem in "\n".join(report.problems)


def test_missing_case_in_a_suite_that_went_on() -> None:
    report = parse_text(
        "KTAP version 1\n1..1\n    # Subtest: s\n    1..3\n    ok 1 a\n    ok 3 c\nok 1 s\n"
    )
    assert statuses(report) == {"s.a": "pass", "s.c": "pass", "s.#2": "error"}
    assert case_of(report, "s.#2").message == "planned, but has no result"
    assert not case_of(report, "s.#2").crashed


def test_absurd_plan_is_no_burden() -> None:
    report = parse_text("TAP version 13\n1..999999999\nok 1 a\n# end\n")
    assert len(report.tests) == ktap.MISSING_CASES + 2
    assert report.tests[-1].name == "#202 to #999999999"


def test_many_absurd_plans_are_no_burden() -> None:
    group = "    KTAP version 1\n    1..999999999\n"
    report = parse_text("KTAP version 1\n" + group * 100)
    assert len(report.tests) < 100 * 3 + ktap.MISSING_CASES
    assert report.tests[-1].name == "#100.#1 to #999999999"


def test_groups_and_names_have_limits() -> None:
    name = "n" * 5000
    headers = "".join(f"{' ' * (4 * n)}# Subtest: {name}\n" for n in range(1, 30))
    report = parse_text(f"KTAP version 1\n{headers}{' ' * 116}ok 1 {name}\n")
    assert f"more than {ktap.DEPTH} groups in each other" in report.problems[0]
    assert max(len(case.name) for case in report.tests) <= (ktap.DEPTH + 1) * (ktap.NAME + 1)
    assert report.count(Status.ERROR) > 0


LINEAR = {
    "groups without a result": ["    KTAP version 1", "    1..1"],
    "splats and results": ["BUG: sleeping function called from x", "ok 1 a"],
    "splats and promises": ["BUG: sleeping function called from x", "# expects splat: BUG: p"],
    "groups and promises": ["    KTAP version 1", "# expects splat: BUG: p"],
    "spaces after a promise": ["# expects splat: a" + " " * 8000 + ":x"] * 2,
    "spaces in a promise": ["# expects splat: a: b" + " " * 8000 + "x"] * 2,
    "control characters": ["\x01" * 4000] * 2,
    "notes and groups": ["# noise", "    KTAP version 1"],
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_hostile_log_takes_linear_time(name: str) -> None:
    def seconds(times: int) -> float:
        lines = ["KTAP version 1", *LINEAR[name] * times]
        begin = time.thread_time()
        report, found = parse(lines), splats.find(lines)
        promised = splats.expected(lines)
        splats.fail_cases(report, found, promised)
        stacks.complaints(report, found, promised, Path("log"))
        return time.thread_time() - begin

    short = name.startswith(("spaces", "control"))
    assert seconds(200 if short else 10_000) < 4


def test_notes_before_many_lost_groups_are_told_once() -> None:
    report = parse_text("KTAP version 1\n" + "# noise\n" * 9 + "    KTAP version 1\n    1..1\n" * 9)
    assert sum("noise" in case.message for case in report.tests) == 1


# Result lines.


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ok 1 name", ("pass", "name", "")),
        ("ok 1 - name", ("pass", "name", "")),
        ("ok 1", ("pass", "#1", "")),
        ("ok 1 -", ("pass", "#1", "")),
        ("not ok 1 a b c", ("fail", "a b c", "")),
        ("ok 1 a#b", ("pass", "a#b", "")),
        ("ok 1 name # rcode=0", ("pass", "name", "rcode=0")),
        ("not ok 1 name #  reason", ("fail", "name", "reason")),
        ("ok 1 name # SKIP", ("skip", "name", "")),
        ("ok 1 name # skipped: reason", ("skip", "name", "reason")),
        ("ok 1 name # SKIP reason # 2", ("skip", "name", "reason # 2")),
        ("not ok 1 name # SKIP reason", ("skip", "name", "reason")),
        ("not ok 1 name # TODO soon", ("skip", "name", "TODO: soon")),
        ("ok 1 name # TODO soon", ("pass", "name", "TODO: soon")),
        ("ok 1 name # XFAIL", ("skip", "name", "XFAIL")),
        ("ok 1 # XFAIL name", ("skip", "name", "XFAIL: name")),
        ("ok 1 name # XPASS", ("pass", "name", "XPASS")),
        ("not ok 1 name # TIMEOUT 45 seconds", ("error", "name", "TIMEOUT: 45 seconds")),
        ("not ok 1 # error no memory", ("error", "no memory", "ERROR: no memory")),
        ("ok 1 skipped # SKIPPER is a ship", ("pass", "skipped", "SKIPPER is a ship")),
        ("ok 1 name[   12.345678] usb 1-1: new device", ("pass", "name", "")),
    ],
)
def test_result_line(line: str, expected: tuple[str, str, str]) -> None:
    match = ktaplines.RESULT.match(line)
    assert match is not None
    assert ktaplines.outcome(match) == expected
    (case,) = parse(["TAP version 14", line, "# end"]).tests
    assert (case.status, case.name, case.message) == expected


@pytest.mark.parametrize(
    "line", ["ok", "ok then", "not ok", "okay 1 a", "ok 1a b", "OK 1 a", "ok1"]
)
def test_no_result_line(line: str) -> None:
    assert parse(["TAP version 14", line]).tests == ()


# Nesting.


def test_suite_that_fails_on_its_own() -> None:
    report = parse_text("KTAP version 1\n1..1\n  # Subtest: s\n  1..1\n  ok 1 a\nnot ok 1 s\n")
    assert statuses(report) == {"s.a": "pass", "s": "fail"}
    assert case_of(report, "s").message == "failed, although none of its tests did"


def test_suite_whose_init_fails_has_no_header() -> None:
    text = "KTAP version 1\n1..1\n    # failed to initialize (-12)\nnot ok 1 iommu_set_domain\n"
    (case,) = parse_text(text).tests
    assert (case.name, case.status) == ("iommu_set_domain", Status.FAIL)
    assert case.message == "# failed to initialize (-12)"


def test_suite_that_is_ok_although_a_case_is_not() -> None:
    report = parse_text("KTAP version 1\n1..1\n  # Subtest: s\n  1..1\n  not ok 1 a\nok 1 s\n")
    assert statuses(report) == {"s.a": "fail"}
    assert report.problems == ("line 6: s: is ok, although a is not",)


def test_nameless_suite_gets_its_name_from_its_result() -> None:
    report = parse_text("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nok 1 s\n")
    assert statuses(report) == {"s.a": "pass"}
    assert report.problems == ()


def test_suite_whose_header_was_lost() -> None:
    report = parse_text("KTAP version 1\n1..1\n    ok 1 a\n    not ok 2 b\nnot ok 1 s\n")
    assert statuses(report) == {"s.a": "pass", "s.b": "fail"}


def test_result_with_another_name_is_not_the_suite_s() -> None:
    report = parse_text("KTAP version 1\n1..2\n  # Subtest: s\n  1..1\n  ok 1 a\nok 2 t\n")
    assert statuses(report) == {"s.a": "pass", "s": "error", "t": "pass"}


def test_repeated_names_are_told_apart() -> None:
    report = parse_text("TAP version 13\n1..3\nok 1 a\nnot ok 2 a\nok 3 a\n")
    assert statuses(report) == {"a": "pass", "a (2)": "fail", "a (3)": "pass"}


def test_repeated_header_is_no_suite() -> None:
    report = parse_text("KTAP version 1\nTAP version 13\n1..2\nok 1 a\nok 2 b\n")
    assert statuses(report) == {"a": "pass", "b": "pass"}
    assert report.problems == ()


def test_nested_output_in_comments_is_not_counted() -> None:
    report = parse_text("TAP version 13\n1..1\n# TAP version 13\n# ok 1 x\nok 1 selftests: a: b\n")
    assert statuses(report) == {"selftests: a: b": "pass"}


# What else is on a console.


def test_two_documents_on_one_console() -> None:
    report = parse_text(
        "[    0.100000] KTAP version 1\n[    0.100000] 1..1\n[    0.100000] ok 1 kunit\n"
        "TAP version 13\n1..2\nok 1 one\n[    5.000000] ok 2 not_mine\nok 2 two\n"
        "TAP version 13\n1..1\nok 1 three\n"
    )
    assert statuses(report) == {"kunit": "pass", "one": "pass", "two": "pass", "three": "pass"}
    assert report.problems == ()


def test_kernel_s_panic_in_the_output_of_a_program() -> None:
    report = parse_text(
        "TAP version 13\n1..2\nok 1 a\n[    5.000000] Kernel panic - not syncing: x\nok 2 b\n"
    )
    assert statuses(report) == {"a": "pass", "#2": "error"}
    assert case_of(report, "#2").message == "the kernel died in or after a"


def test_prefix_of_words() -> None:
    report = parse_text(
        "12:00:01 host: KTAP version 1\n12:00:02 host: 1..1\n12:00:03 host: not ok 1 a\n"
    )
    assert statuses(report) == {"a": "fail"}


def test_indented_document_does_not_eat_other_lines() -> None:
    report = parse_text(" TAP version 14\n 1..1\nXok 1 wrong\n ok 1 a\n")
    assert statuses(report) == {"a": "pass"}


def test_results_before_any_header_do_not_count() -> None:
    report = parse_text("ok 1 a\nok 2 b\n")
    assert report == Report((), ("line 2: no KTAP in the log",))


def test_unknown_version_and_executor_errors_are_problems() -> None:
    report = parse_text(
        "kunit executor: filter op not found\n"
        "KTAP version 9\n1..1\n  TAP version 1\n  ok 1 a\nok 1 s"
    )
    assert report.problems == (
        "line 1: kunit executor: filter op not found",
        "line 2: KTAP version 9 is unknown",
        "line 4: TAP version 1 is unknown",
    )


def test_long_message_is_cut() -> None:
    lines = ["TAP version 13", *(f"# line {number}" for number in range(1000)), "not ok 1 a", ""]
    message = parse(lines).tests[0].message.splitlines()
    assert len(message) == ktaplines.MESSAGE_LINES + 1
    assert message[-1] == "… 900 more lines"


# Bytes.


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(
        b"\x1b[2J\x1b[0mTAP version 13\r\n1..2\r\n"
        b"# a\xff\x00b\r\n\x1b[31mnot ok 1 a\xc3\xa4\x0c\x1b[0m\r\nok\x00 2 b\r\n"
    )
    report = parse(read_lines(log))
    first, second = report.tests
    assert (first.name, first.message) == ("aä\\x0c", "# a\\xff\\x00b")
    assert (second.name, second.status) == ("#2", Status.ERROR)


def test_clean_line_keeps_tabs() -> None:
    assert clean_line("\tok 1 \x1b]0;title\x07a\x07\r\n") == "\tok 1 a\\x07"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[    1.000000] text", (1.0, "text")),
        ("<6>[12345.678901][ T1234]  text", (12345.678901, " text")),
        ("[    1.000000]", (1.0, "")),
        ("[ BUG: Invalid wait context ]", (None, "[ BUG: Invalid wait context ]")),
    ],
)
def test_split_stamp(line: str, expected: tuple[float | None, str]) -> None:
    assert split_stamp(line) == expected


FRAGMENTS = st.sampled_from(
    [
        "KTAP version 1", "TAP version 13", "# Subtest: s", "# Subtest:", "1..3", "1..0 # SKIP",
        "ok 1 a", "not ok 2 b", "ok 3 # SKIP x", "ok 4294967296 y", "ok 1 s", "#  RUN  a.b ...",
        "# a: EXPECTATION FAILED at x:1", "Expected", "", "reboot: System halted",
        "Kernel panic - not syncing: x", "kunit executor: x",
    ]
)  # fmt: skip
LINES = st.builds(
    lambda stamp, indent, text: stamp + indent + text,
    st.sampled_from(["", "", "[    1.000000] "]),
    st.sampled_from(["", "", "    ", "\t", "  ", "        "]),
    st.one_of(FRAGMENTS, FRAGMENTS, FRAGMENTS, st.text()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=25))
def test_never_raises_and_never_invents_a_pass(lines: list[str]) -> None:
    report = parse(lines)
    names = [case.name for case in report.tests]
    assert "" not in names
    oks = sum("ok " in line for line in lines)
    assert report.count(Status.PASS) <= oks
    assert all(0 <= case.first <= case.last + 1 <= len(lines) + 1 for case in report.tests)
