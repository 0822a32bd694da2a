# SPDX-License-Identifier: GPL-2.0-only
"""Series files: what people wrote around the names survives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iommuq.queue.write import Slot, assign, rewrite
from iommuq.system.errors import UserError

TEXT = """\
# The queue.

# Back.
baseline/0001-a.patch

# Sent.
resv/0001-b.patch
# About c.
resv/0002-c.patch -p1
"""
NAMES = ["baseline/0001-a.patch", "resv/0001-b.patch", "resv/0002-c.patch"]


def same(names: list[str]) -> dict[str, str]:
    return {name: name for name in names}


def test_same_names_in_the_same_order() -> None:
    assert rewrite(TEXT, NAMES, same(NAMES)) == TEXT


def test_dropped_head_leaves_what_is_said_of_its_section() -> None:
    names = [NAMES[0], NAMES[2]]
    text = rewrite(TEXT, names, same(names))
    assert text.endswith("\n\n# Sent.\n# About c.\nresv/0002-c.patch -p1\n")


def test_dropped_section_takes_its_words_along() -> None:
    text = rewrite(TEXT, NAMES[1:], same(NAMES[1:]))
    assert text.startswith("# The queue.\n\n# Sent.\nresv/0001-b.patch\n")
    assert "Back" not in text


def test_renamed_patch_keeps_its_options_and_comment() -> None:
    names = [*NAMES[:2], "resv/0003-c.patch"]
    text = rewrite(TEXT, names, {**same(NAMES[:2]), "resv/0003-c.patch": NAMES[2]})
    assert text == TEXT.replace("0002-c", "0003-c")


def test_new_section_is_set_apart() -> None:
    text = rewrite(TEXT, [*NAMES, "more/0001-d.patch"], same(NAMES))
    assert text == TEXT + "\nmore/0001-d.patch\n"


def test_file_without_patches() -> None:
    assert rewrite("# Nothing yet.\n", ["a/0001-b.patch"], {}) == "# Nothing yet.\na/0001-b.patch\n"


def test_last_line_without_an_end() -> None:
    names = ["a/0001-b.patch", "a/0002-c.patch"]
    assert rewrite("a/0001-b.patch", names, same(names[:1])) == "a/0001-b.patch\na/0002-c.patch\n"


_LINES = st.lists(st.sampled_from(["", "# One.", "# Two.", "NAME", "NAME  # why", "NAME -p1"]))


@given(_LINES)
def test_no_change_is_no_change(kinds: list[str]) -> None:
    """Whatever people write into a series, the same patches give the same file."""
    names: list[str] = []
    lines = []
    for kind in kinds:
        if "NAME" in kind:
            names.append(f"{'ab'[len(names) > 2]}/{len(names):04}-x.patch")
            kind = kind.replace("NAME", names[-1])
        lines.append(kind + "\n")
    text = "".join(lines)
    assert rewrite(text, names, same(names)) == text


def slot(old: str | None, subject: str = "x: y", made: str = "0009-x-y.patch") -> Slot:
    return Slot(old, subject, made, subject)


def test_numbers_move_only_as_far_as_they_must() -> None:
    slots = [slot("a/0001-x.patch"), slot(None), slot("a/0002-x.patch"), slot("a/0010-x.patch")]
    assert assign(slots) == [
        "a/0001-x.patch",
        "a/0002-x-y.patch",
        "a/0003-x.patch",
        "a/0010-x.patch",
    ]


def test_width_of_the_number_and_suffix_are_kept() -> None:
    assert assign([slot("a/07-x.diff"), slot("a/01_x.diff")]) == ["a/07-x.diff", "a/08_x.diff"]


def test_only_a_baseline_says_nothing_of_what_comes_after_it() -> None:
    with pytest.raises(UserError) as error:
        assign([slot("baseline/0001-x.patch"), slot(None)])
    assert "--section" in error.value.hint
    names = assign([slot("baseline/0001-x.patch"), slot(None), slot("baseline/0002-z.patch")])
    assert names[1] == "baseline/0002-x-y.patch"
