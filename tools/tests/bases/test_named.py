# SPDX-License-Identifier: GPL-2.0-only
"""Names of kernels on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq.bases.named import Kind, Named, find_spec, parse
from iommuq.system.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the base 6.12, in whose directory there are things of many names."""
    for folder in ("patches/6.12", "6.12", "linux", "a@b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "patches/6.12/base.toml").write_text("", encoding="utf-8")
    (tmp_path / "bzImage").write_bytes(b"")
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("6.12", Named(Kind.BASE, "6.12")),
        ("./6.12", Named(Kind.FOLDER, "6.12", "./6.12")),
        ("7.0", Named(Kind.BASE, "7.0")),
        ("linux", Named(Kind.FOLDER, "linux", "linux")),
        ("linux@v6.1", Named(Kind.COMMIT, "v6.1", "linux")),
        ("git@host:a/b@v6.1", Named(Kind.COMMIT, "v6.1", "git@host:a/b")),
        ("a@b", Named(Kind.FOLDER, "a@b", "a@b")),
        ("none/at/all", Named(Kind.FOLDER, "all", "none/at/all")),
        ("bzImage", Named(Kind.FILE, "bzImage", "bzImage")),
        ("linux-image-amd64", Named(Kind.PACKAGE, "linux-image-amd64")),
        (
            "linux-image-amd64.deb",
            Named(Kind.FILE, "linux-image-amd64.deb", "linux-image-amd64.deb"),
        ),
        ("", Named(Kind.BASE, "")),
        ("x" * 5000, Named(Kind.BASE, "x" * 5000)),
    ],
)
def test_what_a_name_stands_for(words: str, named: Named) -> None:
    assert parse(words) == named


def test_a_commit_of_an_insecure_repository(tmp_path: Path) -> None:
    words = "http://host.invalid/linux@v6.1"
    with pytest.raises(UserError, match="insecure = true"):
        find_spec(words)
    text = 'name = "6.1"\ntitle = "x"\n[source]\nprovider = "git"\nref = "v6.1"\n'
    (tmp_path / "patches/6.1").mkdir()
    base = tmp_path / "patches/6.1/base.toml"
    base.write_text(f'{text}url = "http://host.invalid/linux"\ninsecure = true\n')
    assert find_spec(words).name == "6.1"
    base.write_text(f'{text}url = "https://host.invalid/linux"\n')
    with pytest.raises(UserError, match=r"base 6\.1 exists already"):
        find_spec(words)
