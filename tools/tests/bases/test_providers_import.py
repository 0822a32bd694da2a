# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the providers that need no package manager, through `bases.fetch`."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest

import sources
import toy
from iommuq.bases import basefile
from iommuq.bases import sources as bases
from iommuq.bases.providers import gitref, tarball
from iommuq.system.errors import InfraError, IommuqError, UserError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    (tmp_path / "patches").mkdir()
    return tmp_path


def fetch(root: Path, source: str, seen: str = "") -> bases.Base:
    sources.write_base(root, source, seen=seen)
    return bases.fetch(basefile.load_spec("6.12"))[0]


def fetch_tarball(root: Path, path: Path) -> bases.Base:
    return fetch(root, f'provider = "tarball"\nurl = "{path}"')


def special(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_every_form_gives_the_same_commit(root: Path, toy_tree: Path) -> None:
    base = fetch(root, f'provider = "directory"\npath = "{toy_tree}"')
    assert base.kernel == base.version == "6.12.117"
    assert base.sha256 == ""
    forms = {
        "a.tar": sources.make_tarball(root / "a.tar", toy_tree, mode="w"),
        "a.tar.xz": sources.make_tarball(root / "a.tar.xz", toy_tree, mode="w:xz"),
        "a.tar.gz": sources.make_tarball(root / "a.tar.gz", toy_tree, mode="w:gz"),
        "a.tbz2": sources.make_tarball(root / "a.tbz2", toy_tree, mode="w:bz2"),
        "flat.tar": sources.make_tarball(root / "flat.tar", toy_tree, mode="w", top="."),
    }
    for name, path in forms.items():
        assert fetch_tarball(root, path).commit == base.commit, name


def test_commit_holds_the_tree_and_nothing_else(root: Path, toy_tree: Path) -> None:
    (toy_tree / "scripts" / "link.sh").symlink_to("hello.sh")
    (toy_tree / 'odd "name\\ \t\n ü').write_text("odd", encoding="utf-8")
    (toy_tree / ".git").mkdir()
    (toy_tree / ".git" / "config").touch()
    base = fetch(root, f'provider = "directory"\npath = "{toy_tree}"')
    # Ignored files are there although the tree's .gitignore has them all.
    files = sources.files_of(base.git_dir, base.commit)
    expected = {name: "100755" if name.endswith(".sh") else "100644" for name in toy.FILES}
    odd = [name for name in files if "odd" in name]
    assert len(odd) == 1
    assert files.pop(odd[0]) == "100644"
    assert files == {**expected, "scripts/link.sh": "120000"}
    head = toy.git("cat-file", "commit", base.commit, cwd=base.git_dir).splitlines()
    assert head[1:] == [
        "author iommuq <iommuq@localhost> 0 +0000",
        "committer iommuq <iommuq@localhost> 0 +0000",
        "",
        "Linux 6.12.117",
    ]
    toy.git("fsck", "--strict", cwd=base.git_dir)


def test_directory_is_read_anew_each_time(root: Path, toy_tree: Path) -> None:
    before = fetch(root, f'provider = "directory"\npath = "{toy_tree}"')
    (toy_tree / "README").write_text("changed", encoding="utf-8")
    spec = basefile.load_spec("6.12")
    assert bases.open_base(spec) == before
    after, _ = bases.fetch(spec)
    assert after.commit != before.commit
    assert bases.open_base(spec) == after
    # Users of the old commit still have it.
    toy.git("cat-file", "-e", f"{before.commit}:README", cwd=after.git_dir)


def test_a_directory_that_was_built_in_is_noted(root: Path, toy_tree: Path) -> None:
    (toy_tree / ".config").touch()
    sources.write_base(root, f'provider = "directory"\npath = "{toy_tree}"')
    _, notes = bases.fetch(basefile.load_spec("6.12"))
    assert ["mrproper" in note for note in notes] == [True]


def test_hard_links_become_files(root: Path, toy_tree: Path) -> None:
    member = special("linux-source-6.12/COPY", tarfile.LNKTYPE, "linux-source-6.12/README")
    path = sources.make_tarball(root / "a.tar", toy_tree, mode="w", extra=(member,))
    base = fetch_tarball(root, path)
    assert toy.git("show", f"{base.commit}:COPY", cwd=base.git_dir) == "A toy."


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("/etc/passwd"), "outside the tree"),
        (special("linux-source-6.12/../../x"), "outside the tree"),
        (special("linux-source-6.12/.git/hooks/x"), "in a directory of git"),
        (special("linux-source-6.12/drivers/.GIT/x"), "in a directory of git"),
        (special("linux-source-6.12/null", tarfile.CHRTYPE), "neither a file"),
        (special("linux-source-6.12/fifo", tarfile.FIFOTYPE), "neither a file"),
        (special("linux-source-6.12/l", tarfile.SYMTYPE, "/etc"), "link to /etc"),
        (special("linux-source-6.12/a/l", tarfile.SYMTYPE, "../b/../../.."), "outside"),
        (special("linux-source-6.12/l", tarfile.LNKTYPE, "linux-source-6.12/no"), "does not exist"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_hostile_members_are_refused(
    root: Path, toy_tree: Path, member: tarfile.TarInfo, message: str
) -> None:
    path = sources.make_tarball(root / "a.tar", toy_tree, mode="w", extra=(member,))
    with pytest.raises(UserError, match=message):
        fetch_tarball(root, path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.xz", "a.tar.gz", "a.tar.bz2"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_cut_archives_are_refused_and_the_cache_is_kept(
    root: Path, toy_tree: Path, name: str, part: float
) -> None:
    suffix = Path(name).suffix[1:]
    mode = {"tar": "w", "xz": "w:xz", "gz": "w:gz", "bz2": "w:bz2"}[suffix]
    good = sources.make_tarball(root / "good.tar", toy_tree, mode="w")
    before = fetch_tarball(root, good)
    path = sources.make_tarball(root / name, toy_tree, mode=mode)  # type: ignore[arg-type]
    data = path.read_bytes()
    # Without its empty last blocks even a tar with all members is cut short.
    end = len(data) * part if part < 0.5 or suffix != "tar" else len(data.rstrip(b"\0"))
    path.write_bytes(data[: -(-int(end) // 512) * 512 if suffix == "tar" else int(end)])
    with pytest.raises(InfraError, match=name):
        fetch_tarball(root, path)
    sources.write_base(root, f'provider = "tarball"\nurl = "{good}"')
    path.unlink()
    assert bases.open_base(basefile.load_spec("6.12")) == before


def test_damaged_check_sum_is_noticed(root: Path, toy_tree: Path) -> None:
    path = sources.make_tarball(root / "a.tar.gz", toy_tree, mode="w:gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(InfraError, match="crc error"):
        fetch_tarball(root, path)


def test_other_content_under_the_same_name_is_refused(root: Path, toy_tree: Path) -> None:
    path = sources.make_tarball(root / "linux-6.12.tar", toy_tree, mode="w")
    source = f'provider = "tarball"\nurl = "file://{path}"'
    with pytest.raises(InfraError, match=r"linux-6\.12: sha256 is .*, .*base\.toml has 0000"):
        fetch(root, source, f'version = "linux-6.12"\nsha256 = "{"0" * 64}"')


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('provider = "tarball"\nurl = "no.tar"', r"no\.tar: no such file \(see .*base\.toml"),
        ('provider = "directory"\npath = "no"', "no: no such directory"),
        ('provider = "directory"\npath = "../.."', "not a Linux source tree"),
        ('provider = "git"\nurl = "no"\nref = "v1"', "not a git repository"),
    ],
)
def test_sources_that_do_not_exist(root: Path, source: str, message: str) -> None:
    (root / "README").touch()
    with pytest.raises(UserError, match=message):
        fetch(root, source)


def test_a_server_that_is_not_there(root: Path) -> None:
    # Port 9 of this machine: refused at once, and no name to look up.
    url = "http://127.0.0.1:9/linux.tar.xz"
    with pytest.raises(InfraError, match="network"):
        fetch(root, f'provider = "tarball"\nurl = "{url}"\ninsecure = true')


def test_git_keeps_the_commit_and_leaves_the_history(root: Path, toy_work: Path) -> None:
    old = toy.git("rev-parse", "HEAD", cwd=toy_work)
    toy.git("tag", "-a", "-m", "toy", "v6.12", cwd=toy_work)
    new = toy.commit_all(toy_work, "later")
    # Relative to the folder of base.toml.
    base = fetch(root, 'provider = "git"\nurl = "../../toy-work"\nref = "v6.12"')
    assert (base.commit, base.version, base.kernel) == (old, old, "6.12.117")
    sources.write_base(
        root, f'provider = "git"\nurl = "{toy_work}"\nref = "base"', seen=f'version = "{old}"'
    )
    spec = basefile.load_spec("6.12")
    base, notes = bases.fetch(spec)
    assert base.commit == new
    assert notes == [f"base is {new} here, {old} in [seen]"]
    assert toy.git("rev-list", "--count", new, cwd=base.git_dir) == "1"
    assert bases.open_base(spec) == base
    by_id = fetch(root, f'provider = "git"\nurl = "{toy_work}"\nref = "{new}"')
    assert by_id.commit == new
    with pytest.raises(UserError, match="has no 'v9'"):
        fetch(root, f'provider = "git"\nurl = "{toy_work}"\nref = "v9"')


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ext::sh -c touch% ran", "remote helper"),
        ("c0rp.+-::x", "remote helper"),
        ("http://127.0.0.1:9/linux.git", "insecure = true"),
        ("git://127.0.0.1:9/linux.git", "insecure = true"),
        ("HTTPS://127.0.0.1:9/linux.git", "HTTPS is not supported"),
        ("corp://127.0.0.1:9/linux.git", "corp is not supported"),
    ],
)
def test_git_transports_are_refused_before_git_runs(
    root: Path, url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitref, "run", None)
    with pytest.raises(UserError, match=reason):
        fetch(root, f'provider = "git"\nurl = "{url}"\nref = "v1"')


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_git_without_encryption_if_asked_for(root: Path, scheme: str) -> None:
    source = f'provider = "git"\nurl = "{scheme}://127.0.0.1:9/x"\nref = "v1"\ninsecure = true'
    with pytest.raises(InfraError, match="cannot be fetched"):
        fetch(root, source)


def test_git_is_led_to_no_other_transport(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = f'[url "ext::touch {root}/ran "]\ninsteadOf = https://\n[protocol]\nallow = always\n'
    (root / "config").write_text(config)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(root / "config"))
    with pytest.raises(UserError, match=r"transport 'ext' not allowed \(see `insteadOf`"):
        fetch(root, 'provider = "git"\nurl = "https://127.0.0.1:9/x"\nref = "v1"')
    assert not (root / "ran").exists()


def test_git_objects_are_checked(root: Path, toy_work: Path) -> None:
    tree = toy.git("rev-parse", "HEAD^{tree}", cwd=toy_work)
    (root / "commit").write_text(f"tree {tree}\nauthor A 0 +0000\ncommitter A 0 +0000\n\nx\n")
    words = ("hash-object", "-wt", "commit", "--literally", str(root / "commit"))
    commit = toy.git(*words, cwd=toy_work)
    toy.git("update-ref", "refs/heads/bad", commit, cwd=toy_work)
    with pytest.raises(UserError, match=f"refused: error: object {commit}: missingEmail"):
        fetch(root, f'provider = "git"\nurl = "{toy_work}"\nref = "bad"')


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_git_tag_must_be_signed_if_asked_for(
    root: Path, toy_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not below tmp_path: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as home:
        monkeypatch.setenv("GNUPGHOME", home)
        words = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "A <a@b.org>"]
        subprocess.run(words, check=True, capture_output=True)
        toy.git("tag", "-u", "a@b.org", "-m", "signed", "v1", cwd=toy_work)
        toy.git("tag", "-a", "-m", "not signed", "v2", cwd=toy_work)
        source = f'provider = "git"\nurl = "{toy_work}"\nsigned = true\nref = '
        # A server gives the signed tag of another release.
        toy.git("update-ref", "refs/tags/v3", "refs/tags/v1", cwd=toy_work)
        base = fetch(root, source + '"v1"')
        assert base.commit == toy.git("rev-parse", "HEAD", cwd=toy_work)
        for ref in ("v2", "base"):
            with pytest.raises(InfraError, match=f"{ref} has no good signature"):
                fetch(root, source + f'"{ref}"')
        with pytest.raises(InfraError, match="v3 is the signed tag of v1"):
            fetch(root, source + '"v3"')
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
    monkeypatch.setenv("GNUPGHOME", str(root))  # Without that key.
    sources.write_base(root, source + '"v1"')
    with pytest.raises(InfraError, match="v1 has no good signature"):
        bases.fetch(basefile.load_spec("6.12"), update=True)


@pytest.mark.parametrize("insecure", [True, False])
def test_a_download_that_leads_to_http(insecure: bool) -> None:
    """On the way, or at its end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path == "/a" else 200)
            self.send_header("Location", "/b")
            self.end_headers()
            self.wfile.write(b"content")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a"
        opener = tarball._opener(insecure=insecure)
        if insecure:
            assert opener.open(url, timeout=20).read() == b"content"
        else:
            with pytest.raises(InfraError, match="leads to http://127"):
                opener.open(url, timeout=20)
        server.shutdown()


def test_git_repository_without_a_kernel(root: Path, toy_work: Path) -> None:
    (toy_work / "Makefile").unlink()
    toy.commit_all(toy_work, "no more")
    with pytest.raises(IommuqError, match="not a Linux source tree"):
        fetch(root, f'provider = "git"\nurl = "{toy_work}"\nref = "base"')
