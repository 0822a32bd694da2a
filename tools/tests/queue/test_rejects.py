# SPDX-License-Identifier: GPL-2.0-only
"""Taking diffs apart, and finding the place a hunk was meant for."""

from __future__ import annotations

import pytest

from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.steps import where_to_look

DIFF = b"""\
---
 two files

diff --git a/one.c b/one.c
--- a/one.c
+++ b/one.c
@@ -1,3 +1,3 @@
 a
--- b
+++ c
 d
@@ -9 +9,2 @@ int main(void)
 e
+f
diff --git a/two.c b/two.c
new file mode 100644
--- /dev/null
+++ b/two.c
@@ -0,0 +1 @@
+x
\\ No newline at end of file
--\x20
2.39.5
"""


def test_hunks() -> None:
    found = list(hunks(DIFF))
    assert [(hunk.path, hunk.number, hunk.line, hunk.start) for hunk in found] == [
        ("one.c", 1, 7, 1),
        ("one.c", 2, 12, 9),
        ("two.c", 1, 19, 0),
    ]
    # A removed "-- b" is no header of a file.
    assert found[0].before == (b"a", b"-- b", b"d")
    assert found[0].after == (b"a", b"++ c", b"d")
    assert found[1].header == "@@ -9 +9,2 @@ int main(void)"
    assert (found[2].before, found[2].after) == ((), (b"x",))


def hunk(before: str, after: str, start: int) -> Hunk:
    old, new = (tuple(text.encode().split()) for text in (before, after))
    return Hunk("x.c", "@@", 1, 1, start, old, new)


@pytest.mark.parametrize(
    ("content", "start", "hint"),
    [
        ("1 2 3 a b X d e", 1, "the nearest text is at x.c:4, differing from line 6 on"),
        ("a b X d e 6 a b X d e", 2, "the nearest text is at x.c:1, differing from line 3 on"),
        ("a b X d e 6 a b X d e", 8, "the nearest text is at x.c:7, differing from line 9 on"),
        ("1 a b N d e", 1, "the change is probably in x.c:2 already"),
        ("a 1 2 3 4 5 e", 1, "no similar text in x.c"),
        ("", 1, "no similar text in x.c"),
        (None, 1, "there is no x.c in the tree"),
    ],
)
def test_where_to_look(content: str | None, start: int, hint: str) -> None:
    data = None if content is None else content.replace(" ", "\n").encode()
    assert where_to_look(hunk("a b c d e", "a b N d e", start), data) == hint


def test_braces_do_not_count() -> None:
    """Empty lines and braces are in every file: they make no place a likely one."""
    wanted = Hunk("x.c", "@@", 1, 1, 1, (b"{", b"", b"x", b"", b"}"), (b"",))
    assert where_to_look(wanted, b"{\n\ny\n\n}\n") == "no similar text in x.c"
