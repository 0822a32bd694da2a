# SPDX-License-Identifier: GPL-2.0-only
"""What is kept for the parsers of untrusted bytes, and large inputs that some were slow with."""

from __future__ import annotations

import pytest

from fuzzed import CORPUS, PARSERS
from guarded import attempt

#: Bytes of a large input: what takes time in its square is above the limit by far.
SIZE = 256 << 10
KTAP = b"KTAP version 1\n1..1\n"
SUITE = KTAP + b"    # Subtest: a\n"


def counted(form: bytes, size: int = SIZE) -> bytes:
    """Return lines with another number in each."""
    return b"".join(form % number for number in range(1, size // len(form)))


#: Parser, name, and input.
LARGE = {
    ("ktap", "a problem with a long path"): SUITE[:-1]
    + b"A" * (SIZE // 2)
    + b"\n"
    + b"    ok 5\n" * (SIZE // 20),
    ("ktap", "cases of a suite with a long name"): SUITE[:-1]
    + b"A" * (SIZE // 2)
    + b"\n"
    + counted(b"    ok %d\n", SIZE // 2),
    ("ktap", "short results"): SUITE[:-1] + b"A" * 1000 + b"\n" + b"    ok 5\n" * (SIZE // 5),
    ("ktap", "plans without tests"): KTAP + b"  # Subtest: a\n  1..999999999\n" * (SIZE // 34),
    ("ktap", "blanks after duration"): SUITE + b"    # duration" + b" " * SIZE + b"x\n    ok 1 b\n",
    ("ktap", "notes of suites that are lost"): KTAP
    + b"# x\n" * (SIZE // 8)
    + b"    # Subtest: a\n    1..2\n" * (SIZE // 52),
    ("diff", "mails in mails"): b"Content-Type: message/rfc822\n\n" * 3000,
    ("splats", "splats in cases"): SUITE + counted(b"BUG: x\n    ok %d a\n"),
    ("splats", "expected splats"): SUITE
    + b"# a: expects splat: BUG: 1\n" * (SIZE // 60)
    + b"BUG: x\n" * (SIZE // 20)
    + b"    ok 1 a\n",
    ("build", "an error with many columns"): b"a" + b":1" * (SIZE // 2) + b"\n",
    ("build", "ld"): b"ld:" * (SIZE // 3) + b"\n",
    ("build", "warnings"): counted(b"a: warning: %d\n"),
    ("build", "a path longer than a path may be"): b"  CC      %s.o\na: warning: b\n"
    % (b"a" * 5000),
    ("toml", "nested arrays"): b"a = " + b"[" * SIZE,
    ("toml", "a key with many dots"): b"a." * (SIZE // 2) + b"a=1\n",
    ("toml", "keys with some dots"): (b"a." * 200 + b"a=1\n") * (SIZE // 404),
    ("toml", "a quoted key with many dots"): b'"=\\"" . ' * (SIZE // 8) + b"a=1\n",
    ("toml", "the name of a table with many dots"): b"[" + b"a." * (SIZE // 2) + b"a]\n",
    ("image", "nested arrays"): b"[" * SIZE,
    ("b4", "nested arrays"): b"[" * SIZE,
    ("gcov", "nested arrays"): b"[" * SIZE,
    ("guest", "suites that are missing"): b"iommuq 1\n0 missing a\n" + counted(b"%d missing a\n"),
    ("source", "nested blocks"): b"int a(void)" + b"{for_each_a(b)" * (SIZE // 14),
}


@pytest.mark.parametrize("name", [parser.name for parser in PARSERS])
def test_what_is_kept(name: str) -> None:
    parser = next(parser for parser in PARSERS if parser.name == name)
    paths = [path for path in sorted((CORPUS / name).rglob("*")) if path.is_file()]
    assert paths
    found = {path.name: attempt(parser, path.read_bytes()) for path in paths}
    assert not {name: str(find) for name, find in found.items() if find}


@pytest.mark.parametrize(("name", "what"), LARGE)
def test_large_inputs(name: str, what: str) -> None:
    parser = next(parser for parser in PARSERS if parser.name == name)
    find = attempt(parser, LARGE[name, what])
    assert not find, str(find)


def test_what_is_kept_is_small() -> None:
    paths = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < 300_000
    known = {parser.name for parser in PARSERS}
    assert {path.relative_to(CORPUS).parts[0] for path in paths} == known
