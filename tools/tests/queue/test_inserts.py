# SPDX-License-Identifier: GPL-2.0-only
"""Lines that come into files of a tree: where, once, and without what is there already."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq.queue.inserts import Insert
from iommuq.system.errors import UserError, VerdictError

TREE = "first\nsecond\nTEST_HARNESS_MAIN\n"
BODY = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include "utils.h"

/* Ours */
int ours;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ours.c").write_text(BODY)
    return tmp_path


def test_where_lines_go(folder: Path) -> None:
    for words, wanted in (
        ({"after": "first", "text": "new"}, "first\nnew\nsecond\nTEST_HARNESS_MAIN\n"),
        ({"before": "second", "text": "\nnew\n"}, "first\nnew\nsecond\nTEST_HARNESS_MAIN\n"),
        ({"text": "new"}, f"{TREE}new\n"),
        (
            {"before": "TEST_HARNESS_MAIN", "body": "ours.c"},
            "first\nsecond\n/* Ours */\nint ours;\n\nTEST_HARNESS_MAIN\n",
        ),
        ({"body": "ours.c"}, f"{TREE}\n/* Ours */\nint ours;\n"),
    ):
        insert = Insert("x/y.c", **words)
        made = insert.into(TREE, folder)
        assert made == wanted
        assert insert.into(made, folder) == made


def test_messages_of_the_compiler_name_the_right_file(folder: Path) -> None:
    insert = Insert("x/y.c", before="TEST_HARNESS_MAIN", body="ours.c")
    lines = insert.into(TREE, folder, numbered=True).splitlines()
    at = lines.index('#line 5 "ours.c"')
    assert BODY.splitlines()[4] == lines[at + 1] == "/* Ours */"
    back = lines.index('#line 3 "y.c"')
    assert TREE.splitlines()[2] == lines[back + 1] == "TEST_HARNESS_MAIN"


def test_a_tree_that_they_do_not_fit(folder: Path) -> None:
    for anchor, count in (("third", 0), ("twice", 2)):
        insert = Insert("x/y.c", before=anchor, text="new")
        with pytest.raises(VerdictError, match=f"{count} lines '{anchor}' in x/y.c, must be 1"):
            insert.into(f"{TREE}twice\ntwice\n", folder)


def test_a_file_without_a_beginning(folder: Path) -> None:
    (folder / "odd.c").write_text("int odd;\n")
    (folder / "late.c").write_text(f"{BODY}#include <late.h>\nint more;\n")
    for name, said in (
        ("odd.c", "has no #include"),
        ("none.c", "none.c"),
        ("late.c", "has an #include below code"),
    ):
        with pytest.raises(UserError, match=said):
            Insert("x/y.c", body=name).into(TREE, folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"file": "/etc/passwd", "text": "x"}, "inside a tree"),
        ({"file": "a", "text": "x", "body": "b"}, "either text or body"),
        ({"file": "a"}, "either text or body"),
        ({"file": "a", "text": "x", "after": "y", "before": "z"}, "after or before"),
        ({"file": "a", "body": "../b"}, "below the folder"),
    ],
)
def test_malformed(words: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Insert(**words)
