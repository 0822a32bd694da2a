# SPDX-License-Identifier: GPL-2.0-only
"""Repositories as GitPython has them: what git itself would have made and read."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden
from iommuq.system.errors import CommandTimeout, DiskFull, InfraError, ObjectsLost, UserError
from iommuq.system.git.command import git, init_bare, leave_hook
from iommuq.system.git.objects import Objects
from iommuq.system.git.repository import Repository, _PinnedGit
from iommuq.system.git.scratch import scratch
from iommuq.system.run import run

_WHO = "A U Thor <author@example.org>"


def _git(repo: Path, *words: str, stdin: str = "", **env: str) -> str:
    return git(*words, git_dir=repo, cwd=repo, stdin=stdin, env=env).output.strip()


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with two commits: ``refs/heads/base`` and the one before."""
    path = tmp_path_factory.mktemp("repository") / "repo.git"
    run(["git", "init", "-q", "--bare", "--template=", "-b", "base", path], cwd=path.parent)
    store = Objects(path, path)
    empty = _git(path, "mktree")
    first = _git(path, "commit-tree", empty, stdin="first\n", **_identity("0 +0000"))
    one, two = store.write_blobs([b"one\n", b"two\n"])
    tree = store.replace(
        empty,
        {
            "Makefile": f"100644 blob {one}",
            "drivers/a.c": f"100644 blob {one}",
            "drivers-x": f"100755 blob {two}",
            "drivers.txt": f"100644 blob {two}",
            "lib/link": f"120000 blob {one}",
            'lib/d\udcffb/\u00e4 "q"': f"100644 blob {two}",
        },
    )
    second = store.commit(tree, first, author=_WHO, date="1700000000 +0100", message="second\n")
    _git(path, "update-ref", "refs/heads/base", second)
    return path


def _identity(
    date: str, name: str = "A U Thor", address: str = "author@example.org"
) -> dict[str, str]:
    return {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", name), ("EMAIL", address), ("DATE", f"@{date}"))
    }


def test_trees_are_those_that_git_makes(repo: Path) -> None:
    """git checks order, modes and names; an index with the same files gives the same tree."""
    assert _git(repo, "fsck", "--strict", "--full") == ""
    listing = run(
        ["git", "--git-dir", repo, "ls-tree", "-r", "-z", "base"], cwd=repo, keep_bytes=True
    ).data
    env = {"GIT_INDEX_FILE": str(repo / "other")}
    git("update-index", "-z", "--index-info", git_dir=repo, cwd=repo, stdin=listing, env=env)
    assert _git(repo, "write-tree", **env) == Repository(repo).tree_of("base")


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    address=st.from_regex(r"[a-z .,<>]{0,5}[a-z]+@[a-z]+[.,:]?", fullmatch=True),
    message=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    seconds=st.integers(0, 2**33),
    zone=st.from_regex(r"[+-](0[0-9]|1[0-3])[0-5][0-9]", fullmatch=True),
)
def test_commits_are_those_that_git_makes(
    repo: Path, name: str, address: str, message: str, seconds: int, zone: str
) -> None:
    tree = Repository(repo).tree_of("base")
    date = f"{seconds} {zone}"
    words = ("commit-tree", tree, "-p", "base")
    env = _identity(date, name, address)
    done = git(*words, git_dir=repo, cwd=repo, stdin=message, env=env, check=False)
    if done.returncode != 0:
        return  # git refuses a name of which nothing is left.
    author = f"{name} <{address}>"
    assert (
        Objects(repo, repo).commit(tree, "base", author=author, date=date, message=message)
        == done.output.strip()
    )


def test_what_a_commit_says(repo: Path) -> None:
    there = Repository(repo)
    tip = there.describe("base")
    assert (tip.author, tip.date, tip.subject) == (_WHO, "1700000000 +0100", "second")
    assert there.line(tip.parents[0], "base") == [tip]
    assert there.find("base^") == tip.parents[0]
    assert there.find("refs/heads/none") == there.find("0" * 40) == there.find("--help") == ""
    assert there.branch() == "base"
    assert there.descends("base", tip.parents[0])
    assert not there.descends(tip.parents[0], "base")
    assert there.fork("base", "base^") == tip.parents[0]


def test_subject_of_several_lines(repo: Path) -> None:
    tree = Repository(repo).tree_of("base")
    message = "\n a subject  \nof two lines\n \nbody\n"
    made = Objects(repo, repo).commit(tree, "base", author=_WHO, date="1 +0000", message=message)
    shown = _git(repo, "show", "-s", "--format=%s", made)
    assert Repository(repo).describe(made).subject.strip() == shown.strip()


def test_what_changed(repo: Path) -> None:
    there = Repository(repo)
    store = Objects(repo, repo)
    (blob,) = store.write_blobs([b"new\n"])
    # A file where a directory was, and the other way round.
    after = store.replace(
        there.tree_of("base"),
        {"drivers": f"100644 blob {blob}", "Makefile/x": f"100644 blob {blob}"},
    )
    assert there.changed("base", after) == ["Makefile", "Makefile/x", "drivers", "drivers/a.c"]
    names = _git(repo, "diff-tree", "-r", "--name-only", "--no-renames", "base", after).split("\n")
    assert sorted(names) == there.changed("base", after)
    assert there.changed(after, after) == []


def test_paths_are_looked_up(repo: Path) -> None:
    store = Objects(repo, repo)
    found = store.entries("base", ["drivers/", "Makefile", "none", "lib", "Makefile/x", "none/"])
    assert sorted(found) == ["Makefile", "drivers/a.c", "lib"]
    assert found["lib"].startswith("040000 tree ")
    assert sorted(store.entries("base", [""])) == [
        *("Makefile", "drivers", "drivers-x", "drivers.txt", "lib")
    ]
    assert store.read_file("base", 'lib/d\udcffb/\u00e4 "q"') == b"two\n"
    assert store.read_file("base", "lib/link") is None
    assert store.read_file("base", "lib") is None


def test_no_configuration_but_its_own(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person or a hostile repository configured runs nothing and changes nothing."""
    before = Repository(repo).tree_of("base")
    trap = tmp_path / "trap"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {trap}\n", encoding="utf-8")
    program.chmod(0o755)
    for name in ("post-commit", "reference-transaction", "pre-commit"):
        (repo / "hooks").mkdir(exist_ok=True)
        (repo / "hooks" / name).unlink(missing_ok=True)
        (repo / "hooks" / name).symlink_to(program)
    config = (
        f"[core]\n fsmonitor = {program}\n pager = {program}\n"
        f"[diff]\n external = {program}\n[i18n]\n commitEncoding = latin-1\n"
    )
    (tmp_path / ".gitconfig").write_text(config, encoding="utf-8")
    (tmp_path / "included").write_text(config, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    own = repo / "config"
    text = own.read_text(encoding="utf-8")
    own.write_text(f"{text}[include]\n path = {tmp_path / 'included'}\n", encoding="utf-8")
    try:
        store = Objects(repo, repo)
        made = store.commit(before, "base", author="Ä <a@example.org>", date="1 +0000", message="ä")
        assert b"encoding" not in store.repo.odb.stream(bytes.fromhex(made)).read()
        store.repo.changed("base^", "base")
        store.repo.line("base^", "base")
    finally:
        own.write_text(text, encoding="utf-8")
    assert not trap.exists()


def test_variables_of_a_hook_are_not_followed(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    there = Repository(repo)
    assert there.find("base")
    assert there.write(b"blob", b"of a hook\n")
    assert not (tmp_path / "elsewhere").exists()


def test_a_hooks_repository_is_left(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These git itself would follow, whatever GIT_DIR says."""
    for name in ("GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    leave_hook()
    store = Objects(repo, tmp_path)
    store.read_tree("base")
    assert store.write_tree() == store.tree_of("base")


def test_objects_of_others_are_read(repo: Path) -> None:
    with scratch([repo]) as store:
        tip = Repository(repo).find("base")
        assert store.repo.describe(tip).subject == "second"
        assert not store.has("0" * 40, tip)
        (blob,) = store.write_blobs([b"only here\n"])
        assert store.has(blob, tip)
    assert not Repository(repo).has(blob)


def test_no_process_is_left(repo: Path) -> None:
    before = _children()
    there = Repository(repo)
    for _ in range(3):
        there.describe("base")
        there.changed("base^", "base")
        there.has(there.tree_of("base"))
    # One process answers what is in objects, and one whether they are there.
    assert len(_children() - before) <= 2
    del there
    gc.collect()
    assert _children() <= before


def _children() -> set[str]:
    listing = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True
    )
    return {line for line in listing.stdout.splitlines() if "cat-file" in line}


def test_lost_and_damaged_objects(tmp_path: Path) -> None:
    path = tmp_path / "repo.git"
    run(["git", "init", "-q", "--bare", "--template=", path], cwd=tmp_path)
    store = Objects(path, tmp_path)
    data = [os.urandom(2000) for _ in range(3)]
    blobs = store.write_blobs(data)
    empty = _git(path, "mktree")
    tree = store.replace(empty, {f"d/{each}": f"100644 blob {each}" for each in blobs})
    assert not store.repo.lacks(tree)
    (path / "objects" / blobs[0][:2] / blobs[0][2:]).unlink()
    assert store.repo.lacks(tree)
    with pytest.raises(ObjectsLost, match="missing or damaged"):
        store.read_blob(blobs[0])
    assert store.read_blob(blobs[1]) == data[1]  # The next one is answered again.
    loose = path / "objects" / blobs[1][:2] / blobs[1][2:]
    loose.chmod(0o644)
    loose.write_bytes(b"")  # What a power cut leaves.
    with pytest.raises(ObjectsLost):
        Objects(path, tmp_path).read_blob(blobs[1])
    assert Repository(path).lacks(tree)
    # The pack is damaged in the middle.
    _pack(path, blobs[2])
    with pytest.raises(ObjectsLost):
        Objects(path, tmp_path).read_blob(blobs[2])


def _pack(path: Path, blob: str) -> None:
    """Pack one object, and spoil the pack."""
    _git(path, "pack-objects", "-q", str(path / "objects/pack/pack"), stdin=f"{blob}\n")
    (path / "objects" / blob[:2] / blob[2:]).unlink()
    (pack,) = (path / "objects/pack").glob("*.pack")
    pack.chmod(0o644)
    content = bytearray(pack.read_bytes())
    content[500:600] = bytes(100)
    pack.write_bytes(content)


def test_why_git_failed(repo: Path, tmp_path: Path) -> None:
    """A command that fails for another reason is not taken for a lost object."""
    store = Objects(repo, tmp_path)
    tree = store.tree_of("base")
    (tmp_path / "index.lock").write_text("", encoding="ascii")
    with pytest.raises(InfraError) as caught:
        store.read_tree(tree)
    assert not isinstance(caught.value, ObjectsLost)
    with pytest.raises(ObjectsLost):
        store.git("read-tree", "0123456789" * 4)


def test_full_disk(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Objects(repo, repo)
    tree = store.tree_of("base")
    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(DiskFull, match="No space left"):
        store.write_blobs([b"x"])
    with pytest.raises(DiskFull, match="No space left"):
        store.commit(tree, "base", author=_WHO, date="5 +0000", message="x\n")


def test_a_file_that_is_lost_is_not_the_patchs_fault(tmp_path: Path) -> None:
    path = tmp_path / "repo.git"
    init_bare(path)
    store = Objects(path, tmp_path)
    (blob,) = store.write_blobs([b"one\n"])
    tree = store.replace(_git(path, "mktree"), {"d/f": f"100644 blob {blob}"})
    store.read_tree(tree)
    (path / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(ObjectsLost):
        store.apply(b"--- a/d/f\n+++ b/d/f\n@@ -1 +1 @@\n-one\n+two\n")
    # One that does not fit is, as before.
    assert store.apply(b"--- a/g\n+++ b/g\n@@ -1 +1 @@\n-one\n+two\n").returncode == 1


def test_paths_of_any_depth(repo: Path) -> None:
    store = Objects(repo, repo)
    (blob,) = store.write_blobs([b"deep\n"])
    path = "a/" * 1100 + "f"
    tree = store.replace("base", {path: f"100644 blob {blob}"})
    assert store.read_file(tree, path) == b"deep\n"
    assert store.repo.changed("base", tree) == [path]
    assert not store.repo.lacks(tree)


def test_submodules_are_not_looked_for(repo: Path) -> None:
    tree = _git(repo, "mktree", "--missing", stdin=f"160000 commit {'1' * 40}\tsub\n")
    assert not Repository(repo).lacks(tree)
    (blob,) = Objects(repo, repo).write_blobs([b"a blob\n"])
    assert not Repository(repo).lacks(blob)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (b"[user]\n name = M\xfcller\n", ""),
        (b"name = before any section\n", ""),
        (b"[extensions]\n refStorage = reftable\n", "refStorage = reftable is not supported"),
        (b"[extensions]\n objectformat=sha256\n", "objectformat=sha256 is not supported"),
    ],
)
def test_any_configuration(tmp_path: Path, config: bytes, complaint: str) -> None:
    path = tmp_path / "repo.git"
    init_bare(path)
    (path / "config").write_bytes(config)
    if complaint:
        with pytest.raises(InfraError, match=complaint):
            Repository(path)
    else:
        assert Repository(path).find("HEAD") == ""


def test_only_gits_own_program_runs(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/trap\n", encoding="utf-8")
    program.chmod(0o755)
    script = (
        "import sys; from pathlib import Path\n"
        "from iommuq.system.git.objects import open_repository\n"
        "print(open_repository(Path(sys.argv[1])).find('base'))"
    )
    monkeypatch.setenv("GIT_PYTHON_GIT_EXECUTABLE", str(program))
    done = run([sys.executable, "-c", script, str(repo)], cwd=tmp_path)
    assert done.output.strip() == Repository(repo).find("base")
    assert not (tmp_path / "trap").exists()
    # Nor does GitPython start git by itself, as it does when it is imported.
    calls = tmp_path / "calls"
    shim = tmp_path / "shim/git"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >>{calls}\nexec {shutil.which("git")} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    run([sys.executable, "-c", script, str(repo)], cwd=tmp_path)
    assert {line.split()[0] for line in calls.read_text().splitlines()} == {"cat-file"}
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run([sys.executable, "-c", script, str(repo)], cwd=tmp_path, check=False)
    assert "iommuq.system.errors.ToolMissing: git is not installed" in done.stderr


def test_what_ends_instead_of_an_answer(repo: Path) -> None:
    """The process is started again; what is there is never said not to be."""
    there = Repository(repo)
    tip = there.find("base")
    for number in (signal.SIGKILL, signal.SIGTERM):
        for process in there.git.running:
            os.kill(process.pid, number)
            process.wait()
        assert there.has(tip)
        assert there.find("base") == tip


def test_git_that_does_not_answer(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iommuq.system.git.repository.QUICK", 0.5)
    there = Repository(repo)
    tip = there.find("base")
    for process in there.git.running:
        os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(CommandTimeout, match="did not answer"):
        there.has(tip)
    assert there.has(tip)


def test_an_interrupt_leaves_no_old_answer(repo: Path) -> None:
    there = Repository(repo)
    one = _git(repo, "rev-parse", "base:Makefile")
    two = _git(repo, "rev-parse", "base:drivers.txt")
    there.content(one)

    def interrupted() -> None:
        """Ask, and be interrupted before the answer is read."""
        process: Any = there.git.cat_file_all
        with there._answering():
            process.stdin.write(f"{one}\n".encode())
            process.stdin.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert there.content(two) == b"two\n"


def test_the_program_that_another_user_of_gitpython_chose(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_PinnedGit, "GIT_PYTHON_GIT_EXECUTABLE", str(tmp_path / "none"))
    assert Repository(repo).find("base")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"message": "a\0b"}, "a NUL byte"),
        ({"author": " .,; <a@example.org>"}, "no name in its author"),
        ({"date": "yesterday"}, "yesterday"),
        ({"message": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_what_git_would_not_commit(repo: Path, changed: dict[str, str], complaint: str) -> None:
    store = Objects(repo, repo)
    words = {"author": _WHO, "date": "1 +0000", "message": "x\n", **changed}
    with pytest.raises(UserError, match=complaint):
        store.commit(store.tree_of("base"), "base", **words)


def test_one_repository_for_all_who_ask(repo: Path) -> None:
    many = [Objects(repo, repo) for _ in range(100)]
    before = len(_children())
    assert all(each.has(each.tree_of("base")) for each in many)
    assert len({id(each.repo) for each in many}) == 1
    assert len(_children()) <= before + 2


def test_no_repository(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InfraError, match="not a git repository"):
            Repository(path)


def test_names_that_pass_for_gits_own(repo: Path) -> None:
    store = Objects(repo, repo)
    (blob,) = store.write_blobs([b"x\n"])
    tree = _git(repo, "mktree", stdin=f"100644 blob {blob}\tgit~1\n")
    with pytest.raises(UserError, match="aliases Git metadata"):
        store.repo.entries(tree)
    with pytest.raises(UserError, match="aliases Git metadata"):
        store.replace("base^", {"GIT~1": f"100644 blob {blob}"})


@pytest.mark.parametrize("log", golden.of("git apply"), ids=lambda log: log.said[:40])
def test_whose_fault_it_is_that_git_apply_fails(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: golden.Log
) -> None:
    """Whatever git does not say of the diff itself is a fault of the machine, after a retry."""
    calls = golden.stand_in("git", tmp_path, log, when='[ "$1" = apply ]')
    store = Objects(repo, tmp_path)
    store.read_tree("base")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    refused = pytest.raises(InfraError) if log.code == 3 else contextlib.nullcontext()
    with refused:
        store.apply(b"--- a/Makefile\n+++ b/Makefile\n@@ -1 +1 @@\n-one\n+two\n")
    assert len(calls.read_text().splitlines()) == (2 if log.code == 3 else 1)


@pytest.mark.parametrize(
    "diff",
    [
        "--- a/Makefile\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"
        "--- a/Makefile\n+++ b/Makefile\n@@ -1 +1 @@\n-one\n+two\n",
        "diff --git a/Makefile b/Makefile\nold mode 100644\nnew mode 120000\n",
        "diff --git a/Makefile/x b/Makefile/x\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/Makefile/x\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/drivers b/drivers\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/drivers\n@@ -0,0 +1 @@\n+x\n",
        "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-one\n+two\n",
        "--- a/Makefile\n+++ b/Makefile\n@@ -1 +1 @@\n-other\n+two\n",
        "--- a/lib/link\n+++ b/lib/link\n@@ -1 +1 @@\n-other\n+two\n",
        "not a diff\n",
    ],
)
def test_a_diff_that_does_not_fit_is_the_patchs_fault(
    repo: Path, tmp_path: Path, diff: str
) -> None:
    store = Objects(repo, tmp_path)
    store.read_tree("base")
    assert store.apply(diff.encode()).returncode != 0
