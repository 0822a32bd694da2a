# SPDX-License-Identifier: GPL-2.0-only
"""Finds as KUnit cases: C that a compiler takes, with the operations of the find."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_rules import PAIRS

from iommuq.explore import operations, wire, write
from iommuq.explore.finds import Find
from iommuq.explore.operations import Operation, kinds
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError
from simheader import HEADER, ROOT

#: What the suite and the header need of the kernel.
STUB = """
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef uint8_t u8;
typedef int32_t s32;
typedef uint32_t u32;
#define __packed __attribute__((packed))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(7, 3, 0)
#define IOMMU_DOMAIN_DMA_FQ 11
struct iommu_group;
struct notifier_block { int none; };
struct kunit { int failed; };
struct kunit_suite;
struct kunit_case { void (*run)(struct kunit *test); const char *name; };
struct kunit_suite {
	const char *name;
	int (*suite_init)(struct kunit_suite *suite);
	void (*exit)(struct kunit *test);
	struct kunit_case *test_cases;
};
#define KUNIT_CASE(f) { .run = f, .name = #f }
#define KUNIT_EXPECT_TRUE(test, c) do { (test)->failed |= !(c); } while (0)
#define kunit_info(test, ...) do { (void)(test); } while (0)
#define KUNIT_EXPECT_EQ(test, a, b) do { (test)->failed |= (a) != (b); } while (0)
#define KUNIT_ASSERT_NE_MSG(test, a, b, ...) do { (test)->failed |= (a) == (b); } while (0)
#define kunit_test_suite(s) struct kunit_suite *the_suite = &(s)
"""
#: Runs the cases, and writes each operation that they carry out.
MAIN = """
#include <stdio.h>
#include "explored_kunit.c"
int iommu_sim_init(void) { return 0; }
void iommu_sim_do(const struct iommu_sim_op *op, struct iommu_sim_state *state)
{
	fwrite(op, sizeof(*op), 1, stdout);
	state->ret = 0;
}
int main(void)
{
	struct kunit test = {};
	struct kunit_case *each;

	for (each = explored_cases; each->run; each++)
		each->run(&test);
	return 0;
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with the suite, without its cases, and the header alone."""
    suite = tmp_path / "project" / write.SUITE
    suite.parent.mkdir(parents=True)
    text = (ROOT / write.SUITE).read_text()
    tail = text.partition("static struct kunit_case ")[2]
    first = text.index("/*\n", text.index("static void explored_exit"))
    suite.write_text(
        text[:first] + "static struct kunit_case " + re.sub(r"\tKUNIT_CASE\(\w+\),\n", "", tail)
    )
    shutil.copy(HEADER, suite.parent)
    for name in ("linux/iommu.h", "linux/notifier.h", "linux/version.h", "kunit/test.h"):
        (tmp_path / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "include" / name).write_text(f"#pragma once\n{STUB}" if "test" in name else "")
    (suite.parent / "main.c").write_text(MAIN)
    return tmp_path / "project"


def compiled(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Let a compiler look at the suite, with what a kernel has in place."""
    return subprocess.run(
        ["gcc", "-Wall", "-Werror", "-I", str(project.parent / "include"), *words, "main.c"],
        cwd=(project / write.SUITE).parent,
        capture_output=True,
        text=True,
        check=False,
    )


def text_of(project: Path) -> str:
    return (project / write.SUITE).read_text()


def of(*sequence: Operation, expect: str = "state.ret == 0") -> Find:
    """Return a find with a sequence."""
    return Find(Breach("regions.lost", "a device", expect), sequence, base="7.3", step="a/0001")


def test_a_find_of_each_rule_compiles(project: Path) -> None:
    """A compiler takes a case of each rule, with no warning."""
    for rule in all_rules():
        broken, _ = PAIRS[rule.name]
        for breach in rule.check(broken):
            find = Find(breach, (Operation("add", b=1), broken.operation), base="7.3", seed=7)
            write.add(project, rule.name.replace(".", "_"), find)
    done = compiled(project, "-fsyntax-only")
    assert done.stderr == ""
    assert done.returncode == 0
    assert text_of(project).count("KUNIT_CASE(explored_") == len(PAIRS)


def test_the_case_carries_the_same_operations_out(project: Path) -> None:
    """The bytes that the compiled case hands to the simulated IOMMU are those of the find."""
    sequence = [
        replace(_largest(name), fail_alloc=number % 3) for number, name in enumerate(kinds())
    ]
    sequence += [
        Operation("bind", fail_kind=kind, fail_at=9, fail_errno=error)
        for kind in operations.FAIL_KINDS
        for error in operations.FAIL_ERRNOS
    ]
    # The longest, in three lines.
    sequence.append(Operation("add", 3, 1, 0, 63, 63, 3, "identity", 9, "ENODEV", 60))
    write.add(project, "all_of_them", of(*sequence))
    done = compiled(project, "-o", str(project / "suite"))
    assert (done.returncode, done.stderr) == (0, "")
    out = subprocess.run([project / "suite"], stdout=subprocess.PIPE, check=True).stdout
    assert out == wire.message(sequence)[4:]


def _largest(name: str) -> Operation:
    fields: dict[str, Any] = {key: values - 1 for key, values in kinds()[name].fields.items()}
    return Operation(name, **fields)


def test_a_case_is_readable() -> None:
    """It says what is wrong, where the rule is from, and how it was found."""
    find = replace(
        of(Operation("add", dev=1, b=1, a=0x21), expect="state.ret == 0"),
        breach=Breach("isolation.lazy", "device 1 is untrusted", "state.ret == 0"),
        seed=4,
    )
    lines = write.case("lazy_one", find).splitlines()
    assert lines[:2] == [
        "/*",
        " * Device 1 is untrusted. Rule isolation.lazy: The mappings of an untrusted",
    ]
    assert " * Found by `iommuq explore 7.3 --at a/0001 --seed 4`." in lines
    code = lines[lines.index(" */") + 1 :]
    assert code == [
        "static void explored_lazy_one(struct kunit *test)",
        "{",
        "\tstatic const struct iommu_sim_op ops[] = {",
        "\t\t/* add device 1 to group 0: PCI, insists on identity, regions: direct of one page */",
        "\t\t{ .kind = SIM_ADD, .dev = 1, .a = 0x21, .b = 1 },",
        "\t};",
        "\tstruct iommu_sim_state state = {};",
        "",
        "\texplored_run(test, ops, ARRAY_SIZE(ops), &state);",
        "\tKUNIT_EXPECT_TRUE(test, state.ret == 0);",
        "}",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "Late",
        "0late",
        "_late",
        "late-one",
        "late one",
        "late\n",
        "a(void)",
        "x" * 62,
        "é",
    ],
)
def test_a_name_that_is_none(project: Path, name: str) -> None:
    """A name that is no identifier of a case is refused, and the file is as it was."""
    before = text_of(project)
    with pytest.raises(UserError, match="is not a name of a case"):
        write.add(project, name, of(Operation("add")))
    assert text_of(project) == before


@pytest.mark.parametrize("name", ["joins_late", "run", "suite_init", "exit", "cases", "suite"])
def test_a_name_that_is_taken(project: Path, name: str) -> None:
    """A name of a case, or of the suite's own, is refused, and the file is as it was."""
    if name == "joins_late":
        write.add(project, name, of(Operation("add")))
    before = text_of(project)
    with pytest.raises(UserError, match=f"there is a case of the name {name}"):
        write.add(project, name, of(Operation("bind")))
    assert text_of(project) == before


def test_a_name_that_begins_like_another(project: Path) -> None:
    """Cases stand beside each other, each once, the last first in the table."""
    for name in ("joins_late", "joins_late_too", "late"):
        write.add(project, name, of(Operation("add")))
    text = text_of(project)
    for name in ("joins_late", "joins_late_too", "late"):
        assert text.count(f"static void explored_{name}(") == 1
        assert text.count(f"KUNIT_CASE(explored_{name})") == 1
    assert compiled(project, "-fsyntax-only").returncode == 0


def test_a_suite_that_is_not_as_expected(project: Path) -> None:
    """Without its table, with two, or without the file nothing is written."""
    path = project / write.SUITE
    text = path.read_text()
    for bad in (text.replace("explored_cases[]", "cases[]"), text + text):
        path.write_text(bad)
        with pytest.raises(UserError, match="no table of cases"):
            write.add(project, "late", of(Operation("add")))
        assert path.read_text() == bad
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        write.add(project, "late", of(Operation("add")))
