# SPDX-License-Identifier: GPL-2.0-only
"""Suites as patches: what is for other kernels is taken out, and what is left is whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mailproject
import toy
from iommuq.mail import cover, export
from iommuq.mail import cover as covers
from iommuq.mail.cover import Cover
from iommuq.mail.prep import prerequisites
from iommuq.proof.matrix import Column
from iommuq.proof.records import ProofRecord, Ran
from iommuq.queue.model import Queue, load_queue
from iommuq.results.known import Verdict
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Objects

COMPAT = """\
/* What differs. */
#ifndef __COMPAT_H
#define __COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
/* The newest */
#define T_NEW
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define T_MID
#define T_ERROR	(-22)
#else
#define T_ERROR	(-1)
#define helper(dev) old_helper(dev)
#endif

#endif
"""
SUITE = """\
#include "compat.h"
#ifdef T_NEW
#include "newest.c"
#else
int old;
#endif
#ifdef T_MID
int error = T_ERROR;
#endif
"""
FILES = {
    "t/compat.h": COMPAT,
    "t/suite.c": SUITE,
    "t/newest.c": "int newest;\n",
    "t/Kconfig": "T_NEW\n",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unifdef")
    (folder / "unifdef.c").write_text(mailproject.UNIFDEF)
    subprocess.run(["gcc", "-o", "unifdef", "unifdef.c"], cwd=folder, check=True)
    return folder / "unifdef"


def files(**more: str) -> dict[str, str]:
    return {name: text for name, text in {**FILES, **more}.items() if name != "t/Kconfig"}


def test_newest(program: Path) -> None:
    made = export.resolve(files(), "t/compat.h", "7.3.4", program)
    assert made["t/suite.c"] == '#include "newest.c"\nint error = -22;\n'
    assert made["t/newest.c"] == "int newest;\n"
    # Nothing is left to say in it.
    assert "t/compat.h" not in made


def test_older_has_fewer_files(program: Path) -> None:
    made = export.resolve(files(), "t/compat.h", "6.12.117", program)
    assert made == {"t/suite.c": "int old;\nint error = -22;\n"}


def test_oldest_keeps_its_helpers(program: Path) -> None:
    made = export.resolve(files(), "t/compat.h", "6.1.192-rc1", program)
    assert made["t/suite.c"] == '#include "compat.h"\nint old;\n'
    assert "#define helper(dev) old_helper(dev)" in made["t/compat.h"]
    assert not re.search("T_NEW|T_MID|T_ERROR", made["t/compat.h"])


def test_what_cannot_be_resolved_is_not_mailed(program: Path) -> None:
    text = SUITE + "#if defined(T_NEW) || FOO\nint x;\n#endif\n"
    with pytest.raises(UserError, match=r"t/suite.c: unifdef cannot resolve T_NEW"):
        export.resolve(files(**{"t/suite.c": text}), "t/compat.h", "7.3", program)


WHOLE = """\
// SPDX-License-Identifier: GPL-2.0-only
/* The whole. */
#include "mock.c"

#ifdef PCI
#include "reset.c"
#endif
"""
MOCK = """\
// SPDX-License-Identifier: GPL-2.0-only
/* The mock. */
#include <linux/sizes.h>
#include <kunit/test.h>
#include "../private.h"

/* Its pages */
#define MOCK_PAGES 3
"""
RESET = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/sizes.h>

static void reset(void)
{
}
"""
ONE = """\
// SPDX-License-Identifier: GPL-2.0-only
/* The whole. */
#include <kunit/test.h>
#include <linux/sizes.h>
#include "../private.h"

/* The mock. */

/* Its pages */
#define MOCK_PAGES 3

#ifdef PCI

static void reset(void)
{
}
#endif
"""
PARTS = {"t/whole.c": WHOLE, "t/mock.c": MOCK, "t/reset.c": RESET}


def test_what_is_mailed_is_one_source() -> None:
    other = {"t/Kconfig": "x\n", "t/alone.c": "/* Alone. */\n#include <linux/b.h>\nint b;\n"}
    assert export.joined({**PARTS, **other}) == {"t/whole.c": ONE, **other}


def test_parts_may_have_parts() -> None:
    files = {**PARTS, "t/top.c": '#include "whole.c"\nint last;\n'}
    assert list(export.joined(files)) == ["t/top.c"]
    assert export.joined(files)["t/top.c"].count("#include") == 3


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"t/a.c": '#include "b.c"\n'}, "t/a.c: t/b.c is not exported"),
        ({"t/a.c": '#include "b.c"\n#include "b.c"\n', "t/b.c": ""}, "t/b.c is included twice"),
        ({"t/a.c": '#include "b.c"\n', "t/b.c": '#include "a.c"\n'}, "t/a.c: includes itself"),
    ],
)
def test_parts_that_do_not_fit(files: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        export.joined(files)


def test_the_project_s_suites_become_one_source() -> None:
    folder = Path(__file__).parents[3] / "kunit/drivers/iommu/tests"
    files = {f"t/{path.name}": path.read_text() for path in folder.glob("*.[ch]")}
    made = export.joined(files)
    assert made.keys() == {"t/iommu_kunit.c", "t/iommu_kunit_compat.h"}
    text = made["t/iommu_kunit.c"]
    assert text.count("SPDX-License-Identifier") == 1
    assert not re.search(r'^#include ".*\.c"', text, re.M)
    one = re.compile(r"^static struct kunit_suite ", re.M)
    assert len(one.findall(text)) == sum(len(one.findall(each)) for each in files.values())
    for name in files.keys() - made.keys():
        # Nothing is lost of a part but its SPDX line and its headers.
        body = re.sub(r"\A//.*\n|^#include .*\n", "", files[name], flags=re.M)
        lines = [line for line in body.splitlines() if line.strip()]
        assert not set(lines) - set(text.splitlines()), name


def test_malformed_description(tmp_path: Path) -> None:
    path = tmp_path / "kunit/export.toml"
    path.parent.mkdir()
    for text, said in (
        ('subject = "x"\nmessage = "y"\n', "needs either overlay or insert"),
        ('subject = ""\nmessage = "y"\noverlay = true\n', "needs a subject"),
        ('subject = "x"\noverlay = true\n', "message"),
        ('subject = "x"\nmessage = "y"\noverlay = true\nfoo = 1\n', "foo"),
        ('subject = "x"\nmessage = "y"\n[[insert]]\nfile = "../b"\ntext = "z"\n', "inside a tree"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            export.load_exports(tmp_path)


LINE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1).map(
    lambda text: text if not text.startswith((">#", "<!--")) else "x"
)


@settings(deadline=None)
@given(LINE, st.lists(LINE | st.just("# Heading") | st.just("")), st.integers(1, 99))
def test_cover_survives_b4_and_the_file(subject: str, lines: list[str], revision: int) -> None:
    old = Cover(subject, "\n".join(lines).strip(), "20260101-x-123456", revision)
    assert covers.parse(old.text, "file") == old
    series = {"change-id": old.change_id, "revision": revision}
    assert covers.from_b4(old.for_b4, series, old) == old
    # Nothing of it is a comment to b4.
    assert not any(line.startswith("#") for line in old.for_b4.splitlines()[1:])


def test_cover_leaves_recipients_with_the_branch() -> None:
    old = covers.parse("# toy: Do it\n\nBecause.\n\nCc: stable@vger.kernel.org\n", "x")
    people = "To: a@example.com\nCc: stable@vger.kernel.org\nCc: b@example.com\n"
    text = f"toy: Do it\n\nBecause.\n\n{people}"
    series = {"change-id": "20260101-x-12", "revision": 2, "history": {"v1": ["1@x", "2@x"]}}
    new = covers.from_b4(text, series, old)
    assert new.body == old.body
    assert new.text.endswith("\n<!-- b4\nchange-id: 20260101-x-12\nrevision: 2\nv1: 2@x\n-->\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("toy\n", "first line"),
        ("# \n", "first line"),
        ("# a\n\nb\n\n<!-- b4\nchange-id: ../../x y\n-->\n", "not a change-id"),
        ("# a\n\nb\n\n<!-- b4\nchange-id: 20260101-x-12\nrevision: 0\n-->\n", "not a number"),
        ("# a\n\nb\n\n<!-- b4\nnonsense\n-->\n", "not `key: value`"),
        ("# a\n\nb\n\n<!-- b4\nv1: not an id\n-->\n", "not a version and message id"),
    ],
)
def test_malformed_cover(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        covers.parse(text, "0000-cover.md")


def record(rows: dict[str, str], columns: int) -> ProofRecord:
    """Make a proof of some tests: their verdicts by step, one letter each."""
    words = {"p": Verdict.OK, "F": Verdict.FAILED}
    labels = ["baseline", *(f"{number:04}" for number in range(1, columns))]
    steps = tuple(
        Column(label, label, {test: words[marks[at]] for test, marks in rows.items()})
        for at, label in enumerate(labels)
    )
    ran = (Ran("kunit", "KUnit on User-mode Linux", "um", "native"),)
    return ProofRecord("k", 0.0, "6.12.117", "6.12.117-1~deb12u1", 0, (), ran, steps)


NAME = st.text(st.sampled_from("abc_"), min_size=1, max_size=90)


@settings(deadline=None)
@given(st.lists(NAME, min_size=1, max_size=8, unique=True), st.integers(2, 40), st.data())
def test_proof_table_has_75_columns(names: list[str], columns: int, data: st.DataObject) -> None:
    marks = st.text("pF", min_size=columns, max_size=columns)
    rows = {f"kunit.suite.{name}": data.draw(marks) for name in names}
    proof = record(rows, columns)
    text = cover.proof_table(proof, [f"{number:04}" for number in range(1, columns)])
    assert all(len(line) <= 75 for line in text.splitlines())
    shown = "".join(text.split())
    for name, row in rows.items():
        if len(set(row)) > 1:
            assert name.rpartition(".")[2][:60] in shown


def test_proof_table() -> None:
    proof = record({"kunit.own.late": "FFp", "kunit.own.plain": "ppp"}, 3)
    text = cover.proof_table(proof, ["0002"])
    assert "kunit.own                                     -  1\n" in text
    assert "  late                                        F  p\n" in text
    assert "1 more tests pass at each of these steps." in text
    assert cover.proof_table(proof, ["other"]) == ""


def test_what_a_series_needs(toy_queue: Queue, toy_base: object, tmp_path: Path) -> None:
    del toy_base
    store = Objects(tmp_path / "bases/6.12/repo.git", tmp_path)
    tree = store.tree_of("base")
    first, second, third = toy_queue.patches
    # Each changes other lines than those before it.
    assert prerequisites(store, tree, [first], [second]) == []
    assert prerequisites(store, tree, [first, second], [third]) == []
    assert prerequisites(store, tree, [first, second], [third], {"baseline"}) == [first]


def test_what_a_series_needs_by_text(
    toy_base: object, queue_maker: toy.QueueMaker, tmp_path: Path
) -> None:
    del toy_base
    path = toy.IOMMU_C
    for number, (section, edit) in enumerate(
        {
            "one": ("int ret = 1;", "int ret = 10;"),
            "two": ("int ret = 8;", "int ret = 80;"),
            "three": ("int ret = 10;", "int ret = 11;"),
        }.items(),
        1,
    ):
        name = f"{section}/0001-toy-{number}.patch"
        queue_maker.add(name, queue_maker.mail(f"toy: {section}", {path: edit}))
    one, two, three = load_queue(queue_maker.folder, "6.12").patches
    store = Objects(tmp_path / "bases/6.12/repo.git", tmp_path)
    tree = store.tree_of("base")
    assert prerequisites(store, tree, [one, two], [three]) == [one]
    assert prerequisites(store, tree, [two], [three]) is None
