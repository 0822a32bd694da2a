# SPDX-License-Identifier: GPL-2.0-only
"""Source archives that would lead out of the tree, or take more than they may."""

from __future__ import annotations

import binascii
import gzip
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import sources
from iommuq.bases import basefile
from iommuq.bases import sources as bases
from iommuq.bases.providers import archive
from iommuq.bases.providers.snapshot import Snapshot
from iommuq.system import tarstream
from iommuq.system.errors import UserError

MAKEFILE = b"VERSION = 6\nPATCHLEVEL = 12\n"


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    to: str = "",
    data: bytes = b"",
    top: str = "t",
    extra: dict[str, str] | None = None,
) -> bytes:
    """Return the blocks of one member, below a top directory."""
    info = tarfile.TarInfo(f"{top}/{name}")
    info.type, info.linkname, info.size = kind, to, len(data)
    info.pax_headers = extra or {}
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def link(name: str, to: str) -> bytes:
    return member(name, tarfile.SYMTYPE, to)


def pax(data: bytes) -> bytes:
    """Return an extended header with any content."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def record(key: str, value: bytes) -> bytes:
    """Return one line of an extended header."""
    rest = len(key) + len(value) + 3
    size = next(n for n in range(rest, rest + 9) if len(str(n)) + rest == n)
    return b"%d %s=%s\n" % (size, key.encode(), value)


def huge_dictionary(data: bytes) -> bytes:
    """Return *data* as xz whose dictionary takes 4 GiB."""
    whole = bytearray(lzma.compress(data))
    size = (whole[12] + 1) * 4
    block = whole[12 : 12 + size]
    block[block.index(b"\x21\x01") + 2] = 40
    block[-4:] = binascii.crc32(block[:-4]).to_bytes(4, "little")
    whole[12 : 12 + size] = block
    return bytes(whole)


def import_bytes(root: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> bases.Base:
    monkeypatch.setenv("IOMMUQ_ROOT", str(root))
    (root / "a.tar").write_bytes(data)
    sources.write_base(root, f'provider = "tarball"\nurl = "{root / "a.tar"}"')
    return bases.fetch(basefile.load_spec("6.12"))[0]


def tar(*blocks: bytes) -> bytes:
    return b"".join([member("Makefile", data=MAKEFILE), *blocks, bytes(1024)])


CASES = {
    "through a link to here": (link("b", "."), link("c", "b/b/../.."), "b is a link to ., which"),
    "out through a link": (link("d/e/f", "../g"), link("d/c", "e/f/../../.."), "outside the tree"),
    "below a link": (link("d", "e"), member("e/x"), member("d/x"), "d/x is below t/d"),
    "below a file": (member("d"), member("d/x"), "d/x is below t/d"),
    "a link that is moved by a hard link": (
        link("a/b/l", "../../Makefile"),
        member("l", tarfile.LNKTYPE, "t/a/b/l"),
        "t/l is a link to ../../Makefile, outside the tree",
    ),
    "a circle": (link("a", "b"), link("b", "a"), "which has no end"),
    "above itself": (link("a/b/c", "../../a"), "which contains it"),
    "many links": (*(link(f"l{n}", "Makefile") for n in range(1001)), "more than 1000 symbolic"),
    "a NUL in a path": (pax(record("path", b"t/a\0b")), member("x"), "has a NUL"),
    "a NUL in a link": (pax(record("linkpath", b"a\0b")), link("x", "y"), "has a NUL"),
    "a long path": (member("a/" * 200), "more than 255 bytes"),
    "sparse, as GNU tar did": (member("x", tarfile.GNUTYPE_SPARSE), "is sparse"),
    "sparse": (member("x", extra={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}), "is sparse"),
    "a map that is none": (member("x", extra={"GNU.sparse.map": "a,b"}), "malformed header"),
    "a size below zero": (pax(record("size", b"-5")), member("x", data=b"12345"), "no size"),
    "a large header": (pax(record("comment", b"x" * 20_000)), member("x"), "more than 16 KiB"),
    "a chain of headers": (pax(record("comment", b"x")) * 5000, member("x"), "more than 16 KiB"),
    "a large member": (
        pax(record("size", b"%d" % (1 << 40))), member("x", data=b"x"), "more than 128 MiB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_archive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    *blocks, said = CASES[name]
    with pytest.raises(UserError) as caught:
        import_bytes(tmp_path, monkeypatch, tar(*blocks))  # type: ignore[arg-type]
    assert str(said) in str(caught.value)


def test_links_within_the_tree_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"a/l": "../b", "b/c/l": "../../a/l/d", "b/none": "../missing", "e": "a/l/c/../d"}
    data = tar(*(link(*pair) for pair in links.items()), member("b/d/x"))
    base = import_bytes(tmp_path, monkeypatch, data)
    found = sources.files_of(base.git_dir, base.commit)
    assert {path for path, mode in found.items() if mode == "120000"} == set(links)


def test_an_archive_that_unpacks_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tar(*(member(f"{n}", data=bytes(8 << 20)) for n in range(5)))
    with pytest.raises(UserError, match=r"unpacks to more than \d\d MiB"):
        import_bytes(tmp_path, monkeypatch, gzip.compress(data, 9))


def test_an_archive_of_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST", replace(archive._MOST, members=9))
    with pytest.raises(UserError, match="more than 9 members"):
        import_bytes(tmp_path, monkeypatch, tar(*(member(str(n)) for n in range(10))))


def test_an_archive_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "_SECONDS", 0.0)
    with pytest.raises(UserError, match="takes more than 0 s"):
        import_bytes(tmp_path, monkeypatch, tar())


def test_an_archive_that_takes_too_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="takes too much memory"):
        import_bytes(tmp_path, monkeypatch, huge_dictionary(tar()))


def test_a_version_that_would_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MAKEFILE + b"EXTRAVERSION = -rc1\x1b[31m\n"
    base = import_bytes(tmp_path, monkeypatch, member("Makefile", data=made) + bytes(1024))
    assert base.kernel == "6.12-rc1"


def test_makefiles_beside_the_tree_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    finish = Snapshot.finish

    def count(self: Snapshot) -> None:
        kept.append(sum(map(len, self._makefiles.values())))
        finish(self)

    monkeypatch.setattr(Snapshot, "finish", count)
    others = (member("Makefile", top=f"{n}", data=bytes(1 << 20)) for n in range(9))
    with pytest.raises(UserError, match="not a Linux source tree"):
        import_bytes(tmp_path, monkeypatch, tar(*others))
    assert kept == [len(MAKEFILE)]
