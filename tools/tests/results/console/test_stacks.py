# SPDX-License-Identifier: GPL-2.0-only
"""Stacks of bare addresses are decoded by the symbols of the image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from iommuq.results.console import ktap, splats, stacks
from iommuq.results.console.stacks import Symbols
from iommuq.results.store import Complaint

SYMBOLS = Symbols(
    (0x60028D1D, 0x60028D85, 0x60158000, 0x60200000), ("clone", "clone3", "nofail", "_etext")
)
SPLAT = """\
WARNING: drivers/iommu/iommu.c:157 at 0x000000006015803e, CPU#0: kunit/191
Call Trace:
 [<60028deb>] ? 0x0000000060028deb
 [<60028d1d>] 0x0000000060028d1d
 [<10000000>] ? 0x0000000010000000
 [<70000000>] ? 0x0000000070000000
 set_domain_nofail+0x12/0x40"""


def test_addresses_become_names() -> None:
    assert stacks.decode(SPLAT, SYMBOLS).splitlines() == [
        "WARNING: drivers/iommu/iommu.c:157 at nofail+0x3e (0x000000006015803e), CPU#0: kunit/191",
        "Call Trace:",
        " [<60028deb>] ? clone3+0x66",
        " [<60028d1d>] clone+0x0",
        # Before the first function, and after the last.
        " [<10000000>] ? 0x0000000010000000",
        " [<70000000>] ? 0x0000000070000000",
        " set_domain_nofail+0x12/0x40",
    ]
    once = stacks.decode(SPLAT, SYMBOLS)
    assert stacks.decode(once, SYMBOLS) == once


def test_without_symbols_the_text_stays() -> None:
    assert stacks.decode(SPLAT, Symbols()) == SPLAT


def test_symbols_of_an_image(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "a.c").write_text(
        "int toy_first(void) { return 1; }\nint main(void) { return toy_first(); }\n"
    )
    subprocess.run([gcc, "-no-pie", "-o", "linux", "a.c"], cwd=tmp_path, check=True)
    symbols = Symbols.read(tmp_path / "linux")
    start = symbols.starts[symbols.names.index("toy_first")]
    assert symbols.name(start + 1) == "toy_first+0x1"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(2000), b"MZ no symbols"])
def test_an_image_without_symbols(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image").write_bytes(data)
    assert Symbols.read(tmp_path / "image") == Symbols()
    assert Symbols.read(tmp_path / "not there") == Symbols()


def test_the_image_is_read_for_bare_addresses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Symbols:
        raise AssertionError("was read")

    monkeypatch.setattr(Symbols, "read", refuse)
    named = Complaint("", "BUG", "BUG: x", " toy+0x1/0x2")
    assert stacks.decoded([named], Path("/image")) == [named]
    with pytest.raises(AssertionError):
        stacks.decoded([Complaint("", "BUG", "x", SPLAT)], Path("/image"))


LOG = """\
KTAP version 1
1..1
    KTAP version 1
    # Subtest: toy
    1..2
    # a: expects splat: WARNING
------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2
---[ end trace 0000000000000000 ]---
    ok 1 a
------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at b.c:1 g+0x1/0x2
---[ end trace 0000000000000000 ]---
    ok 2 b
ok 1 toy
------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at c.c:1 h+0x1/0x2
---[ end trace 0000000000000000 ]---
""".splitlines()


def test_a_promise_is_of_one_splat() -> None:
    """The second splat of a case that announces one is not expected."""
    twice = splats.find(LOG)[:1] * 2
    found = stacks.complaints(ktap.parse(LOG), twice, splats.expected(LOG), Path("/l"))
    assert [one.expected for one in found] == [True, False]


def test_splats_know_their_test_and_whether_it_expected_them() -> None:
    found = stacks.complaints(
        ktap.parse(LOG), splats.find(LOG), splats.expected(LOG), Path("/l"), prefix="p."
    )
    assert [(one.test, one.expected, one.line) for one in found] == [
        ("p.toy.a", True, 7),
        ("p.toy.b", False, 11),
        ("", False, 16),
    ]
    assert "b.c:1" in found[1].title
    assert found[1].log == "/l"
