# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the files that describe bases, and of the cache that holds their sources."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sources
import toy
from iommuq.bases import basefile
from iommuq.bases import sources as bases
from iommuq.bases.basefile import BaseSpec
from iommuq.bases.providers.debian import DebianSource
from iommuq.bases.providers.directory import DirectorySource
from iommuq.bases.providers.gitref import GitSource
from iommuq.system.errors import DiskFull, InfraError, UserError

FETCH = (
    "from iommuq.bases.basefile import load_spec; from iommuq.bases.sources import fetch;"
    " print(fetch(load_spec('6.12'))[0].commit)"
)
DEBIAN = 'provider = "debian"\npackage = "linux-source-6.12"'


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    (tmp_path / "patches").mkdir()
    return tmp_path


@pytest.fixture
def spec(root: Path, toy_tree: Path) -> BaseSpec:
    """Return a base in a tarball."""
    path = sources.make_tarball(root / "linux-6.12.tar.xz", toy_tree)
    sources.write_base(root, f'provider = "tarball"\nurl = "{path}"')
    return basefile.load_spec("6.12")


@pytest.fixture
def cache() -> Path:
    return Path(os.environ["IOMMUQ_CACHE_DIR"]) / "bases"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_project_s_own_bases_are_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOMMUQ_ROOT")
    spec = next(spec for spec in basefile.list_specs() if spec.name == "6.12")
    assert spec.source == DebianSource(package="linux-source-6.12")
    assert spec.seen is not None


def test_bases_are_listed_oldest_first(root: Path) -> None:
    for name in ("7.3", "6.12", "6.1"):
        sources.write_base(root, DEBIAN, name=name)
    (root / "patches" / "notes").mkdir()
    assert [spec.name for spec in basefile.list_specs()] == ["6.1", "6.12", "7.3"]


@pytest.mark.parametrize("name", ["9.9", "", ".", "..", ".hidden", "../6.12", "6.12/", "a\nb"])
def test_unknown_base(root: Path, name: str) -> None:
    sources.write_base(root, DEBIAN, name="6.1")
    sources.write_base(root, DEBIAN)
    with pytest.raises(UserError, match=r"^no base .*; there are 6\.1, 6\.12 \("):
        basefile.load_spec(name)


def test_a_base_whose_file_is_none(root: Path) -> None:
    (root / "patches/6.12/base.toml").mkdir(parents=True)
    with pytest.raises(UserError, match=r"base.toml: Is a directory"):
        basefile.load_spec("6.12")


def test_no_base_at_all() -> None:
    with pytest.raises(UserError, match="there is none"):
        basefile.load_spec("6.12")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"name: is missing"),
        ('name = "6.12"\ntitle = ]', r"line 2"),
        (
            'name = "6.1"\ntitle = "x"\n[source]\nprovider = "git"',
            r"name is '6\.1', but its folder",
        ),
        ('name = "6.12"\ntitle = "x"\nextra = 1\n[source]', r"extra: unknown key"),
        ('name = "6.12"\ntitle = "x"', r"source: is missing"),
        ('name = "6.12"\ntitle = "x"\n[source]\n', r"no provider \(it may be debian, git"),
        ('name = "6.12"\ntitle = "x"\n[source]\nprovider = "svn"', r"source\.provider is 'svn'"),
        ('name = "6.12"\ntitle = "x"\n[source]\nprovider = ["git"]', r"source\.provider is \["),
        ('name = "6.12"\ntitle = 7\n[source]\nprovider = "git"', r"title: .*string"),
    ],
)
def test_malformed_file(root: Path, text: str, message: str) -> None:
    path = sources.write_base(root, DEBIAN)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"patches/6\.12/base\.toml: .*" + message):
        basefile.load_spec("6.12")


@pytest.mark.parametrize(
    ("source", "seen", "message"),
    [
        (DEBIAN + "\nsweet = true", "", r"source\.sweet: unknown key"),
        ('provider = "debian"', "", r"source\.package: is missing"),
        ('provider = "debian"\npackage = "-o Dir=/"', "", r"source: package is not"),
        (DEBIAN + '\nsuite = "a main\\ndeb"', "", r"source: suite is malformed"),
        (DEBIAN + '\nsuite = "a"\nmirror = "x [trusted=yes]"', "", r"source: mirror is not"),
        ('provider = "git"\nurl = "--upload-pack=x"\nref = "v1"', "", r"source: url must"),
        ('provider = "git"\nurl = "x"\nref = "-x"', "", r"source: ref must"),
        ('provider = "git"\nurl = "x"\nref = "a:b"', "", r"source: ref must"),
        ('provider = "tarball"\nurl = "ftp://x/y"', "", r"source: url: ftp is not supported"),
        ('provider = "tarball"\nurl = "http://[x/y"', "", r"source: .*URL"),
        ('provider = "directory"\npath = ""', "", r"source: path is empty"),
        (DEBIAN, "version = 6", r"seen\.version: .*string"),
        (DEBIAN, 'version = "6"\nsha256 = "xyz"', r"seen: sha256 is not"),
        (DEBIAN, 'version = "6"\nsha1 = ""', r"seen\.sha1: unknown key"),
    ],
)
def test_malformed_tables(root: Path, source: str, seen: str, message: str) -> None:
    sources.write_base(root, source, seen=seen)
    with pytest.raises(UserError, match=r"base\.toml: " + message):
        basefile.load_spec("6.12")


def test_file_that_is_no_text(root: Path) -> None:
    sources.write_base(root, DEBIAN).write_bytes(b'name = "\xff"')
    with pytest.raises(UserError, match="not UTF-8 at byte 8"):
        basefile.load_spec("6.12")


def test_add_writes_what_load_reads(root: Path) -> None:
    path = basefile.add(
        "7.3", {"provider": "git", "url": 'odd "name\\', "ref": "v7.3"}, title='A "title" ü\x7f'
    )
    assert path == root / "patches" / "7.3" / "base.toml"
    spec = basefile.load_spec("7.3")
    assert spec.title == 'A "title" ü\x7f'
    assert spec.source == GitSource(url='odd "name\\', ref="v7.3")
    series = (path.parent / "series").read_text(encoding="utf-8")
    assert all(line.startswith("#") for line in series.splitlines())
    with pytest.raises(UserError, match="exists already"):
        basefile.add("7.3", {"provider": "directory", "path": "x"})
    assert basefile.load_spec("7.3") == spec


def test_add_refuses_nonsense_and_leaves_nothing(root: Path) -> None:
    for name, source in (("../x", {"provider": "directory", "path": "x"}), ("7.3", {})):
        with pytest.raises(UserError):
            basefile.add(name, source)
    assert names(root / "patches") == set()


def test_add_keeps_a_series_that_is_there(root: Path) -> None:
    series = root / "patches" / "7.3" / "series"
    series.parent.mkdir()
    series.write_text("a.patch\n", encoding="utf-8")
    basefile.add("7.3", {"provider": "directory", "path": "x"})
    assert series.read_text(encoding="utf-8") == "a.patch\n"


def test_record_seen_touches_only_its_table(spec: BaseSpec) -> None:
    base, _ = bases.fetch(spec)
    before = spec.path.read_text(encoding="utf-8")
    bases.record_seen(spec, base)
    text = spec.path.read_text(encoding="utf-8")
    assert text.startswith(before)
    wanted = basefile.Seen("linux-6.12", base.sha256, base.commit)
    assert basefile.load_spec("6.12").seen == wanted
    # Again, with comments around, another table behind, and values that are out of date.
    odd = text.replace("[seen]\nversion", "[seen] # here\n# why\nversion")
    odd = odd.replace(base.sha256, "0" * 64)
    head, _, tail = odd.partition("\n[source]")
    table, _, seen = tail.partition("\n[seen]")
    odd = f"{head}\n[seen]{seen}\n[source]{table}"
    spec.path.write_text(odd, encoding="utf-8")
    bases.record_seen(basefile.load_spec("6.12"), base)
    assert basefile.load_spec("6.12").seen == wanted
    kept = [line for line in spec.path.read_text(encoding="utf-8").splitlines() if "#" in line]
    assert kept == ["[seen] # here", "# why"]


def test_record_seen_gives_up_on_another_form(spec: BaseSpec) -> None:
    base, _ = bases.fetch(spec)
    text = 'seen.version = "x"\n' + spec.path.read_text(encoding="utf-8")
    spec.path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"a separate \[seen\] table"):
        bases.record_seen(spec, base)
    assert spec.path.read_text(encoding="utf-8") == text


def test_a_base_in_the_cache_runs_nothing(spec: BaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    base = bases.open_base(spec)
    assert base.git_dir.parts[-3:] == ("bases", "6.12", "repo.git")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert bases.open_base(spec) == base


def test_another_source_is_another_base(spec: BaseSpec, root: Path, toy_tree: Path) -> None:
    before = bases.open_base(spec)
    (toy_tree / "README").unlink()
    sources.write_base(root, f'provider = "directory"\npath = "{toy_tree}"')
    after = bases.open_base(basefile.load_spec("6.12"))
    assert after.commit != before.commit
    assert "README" not in sources.files_of(after.git_dir, after.commit)


def test_two_checkouts_share_a_package(root: Path) -> None:
    one = sources.write_base(root / "one", DEBIAN).parent
    two = sources.write_base(root / "two", DEBIAN).parent
    source = DebianSource("linux-source-6.12")
    keys = {BaseSpec("6.12", "x", folder, source).key for folder in (one, two)}
    assert len(keys) == 1
    local = DirectorySource("../linux")
    keys = {BaseSpec("6.12", "x", folder, local).key for folder in (one, two)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "damage", ["base.json", "repo.git/HEAD", "repo.git/refs/heads/base", "repo.git/objects/pack/*"]
)
@pytest.mark.parametrize("how", ["lost", "empty"])
def test_a_damaged_cache_is_made_again(spec: BaseSpec, cache: Path, damage: str, how: str) -> None:
    base = bases.open_base(spec)
    for path in list((cache / "6.12").glob(damage)):
        path.chmod(0o600)
        path.unlink()
        if how == "empty":
            path.touch()
    assert bases.fetch(spec)[0] == base
    assert bases.open_base(spec) == base
    toy.git("fsck", "--strict", cwd=base.git_dir)
    assert names(cache) == {"6.12", "6.12.lock"}


def test_packed_references_are_no_damage(spec: BaseSpec) -> None:
    base = bases.open_base(spec)
    toy.git("gc", "--quiet", "--prune=now", cwd=base.git_dir)
    assert not (base.git_dir / "refs" / "heads" / "base").exists()
    Path(vars(spec.source)["url"]).unlink()
    assert bases.open_base(spec) == base


def test_another_version_than_seen_is_a_note(root: Path, spec: BaseSpec) -> None:
    url = vars(spec.source)["url"]
    sources.write_base(root, f'provider = "tarball"\nurl = "{url}"', seen='version = "linux-6.11"')
    spec = basefile.load_spec("6.12")
    for _ in range(2):
        assert bases.fetch(spec)[1] == [f"{url} is linux-6.12 here, linux-6.11 in [seen]"]


def test_what_is_in_the_cache_is_compared_with_seen(root: Path, spec: BaseSpec) -> None:
    bases.open_base(spec)
    seen = f'version = "linux-6.12"\nsha256 = "{"0" * 64}"'
    sources.write_base(root, f'provider = "tarball"\nurl = "{vars(spec.source)["url"]}"', seen=seen)
    spec = basefile.load_spec("6.12")
    with pytest.raises(InfraError, match=r"delete \[seen\]"):
        bases.open_base(spec)
    with pytest.raises(InfraError, match=r"delete \[seen\]"):
        bases.fetch(spec)


def slow_cat(root: Path, seconds: float) -> dict[str, str]:
    """Return an environment in which unpacking begins, says so, and takes its time."""
    tools = root / "slow"
    tools.mkdir()
    script = f'#!/bin/sh\necho $$ >> "{root}/started"\nsleep {seconds}\nexec /bin/cat "$@"\n'
    (tools / "cat").write_text(script, encoding="utf-8")
    (tools / "cat").chmod(0o755)
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text(encoding="utf-8").endswith("\n"):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_is_killed_hurts_no_later_one(
    root: Path, cache: Path, spec: BaseSpec, signum: signal.Signals
) -> None:
    environment = slow_cat(root, 60)
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH], env=environment, stderr=subprocess.DEVNULL
    )
    wait_for(root / "started")
    pid = int((root / "started").read_text(encoding="utf-8"))
    child.send_signal(signum)
    assert child.wait(20) != 0
    assert "6.12" not in names(cache)
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, "xz lives on"
        time.sleep(0.01)
    assert any("-tmp-" in name for name in names(cache)) == (signum == signal.SIGKILL)
    base, _ = bases.fetch(spec)
    assert set(sources.files_of(base.git_dir, base.commit)) == set(toy.FILES)
    assert names(cache) == {"6.12", "6.12.lock"}


@pytest.mark.usefixtures("spec")
def test_two_fetches_at_once_do_it_once(root: Path) -> None:
    environment = slow_cat(root, 0.5)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = {child.communicate(timeout=30)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert len(outputs) == 1
    assert len((root / "started").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, InfraError)],
)
def test_what_the_disk_says(
    spec: BaseSpec,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[InfraError],
) -> None:
    def provide(*_: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    with monkeypatch.context() as patch:
        patch.setattr(type(spec.source), "provide", provide)
        with pytest.raises(InfraError, match=f"some/file: {os.strerror(number)}") as caught:
            bases.fetch(spec)
    assert caught.type is kind
    assert names(cache) == {"6.12.lock"}
    bases.fetch(spec)


def test_a_full_disk_under_git(
    root: Path, spec: BaseSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = root / "full"
    tools.mkdir()
    script = (
        '#!/bin/sh\ncase "$*" in *fast-import*)'
        " echo 'fatal: sha1 file tmp_pack_x write error. Out of diskspace' >&2; exit 128;; esac\n"
        'exec /usr/bin/git "$@"\n'
    )
    (tools / "git").write_text(script, encoding="utf-8")
    (tools / "git").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        with pytest.raises(DiskFull):
            bases.fetch(spec)
    assert names(cache) == {"6.12.lock"}
    bases.fetch(spec)


def test_a_cache_that_cannot_be_made(
    spec: BaseSpec, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").touch()
    monkeypatch.setenv("IOMMUQ_CACHE_DIR", str(root / "file" / "cache"))
    with pytest.raises(InfraError, match="Not a directory"):
        bases.open_base(spec)
