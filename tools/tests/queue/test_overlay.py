# SPDX-License-Identifier: GPL-2.0-only
"""The overlay: what is read from its folder, and what a tree looks like under it."""

from __future__ import annotations

from pathlib import Path

import pytest

import toy
from iommuq.queue.overlay import Layer, load_overlay
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.git.objects import Objects

HOOK = '#include "tests/iommu_kunit.c"\n'
DESCRIPTION = f"""\
[[hook]]
file = "{toy.IOMMU_C}"
append = '''
{HOOK}'''

[[copy]]
from = "drivers/iommu/tests"
to = "drivers/iommu/tests"
"""


@pytest.fixture
def kunit(tmp_path: Path) -> Path:
    folder = tmp_path / "kunit"
    toy.write_tree(
        folder,
        {
            "overlay.toml": DESCRIPTION,
            "drivers/iommu/tests/iommu_kunit.c": "int suite;\n",
            "drivers/iommu/tests/.kunitconfig": "CONFIG_KUNIT=y\n",
            "drivers/iommu/tests/more/run.sh": "#!/bin/sh\n",
            "drivers/iommu/tests/iommu_kunit.c~": "left by an editor\n",
            "drivers/iommu/tests/.iommu_kunit.c.swp": "left by another\n",
        },
    )
    return folder


@pytest.fixture
def store(tmp_path: Path, toy_work: Path) -> Objects:
    folder = tmp_path / "store"
    folder.mkdir()
    return Objects(toy_work / ".git", folder)


def show(store: Objects, tree: str, path: str) -> str | None:
    data = store.read_file(tree, path)
    return None if data is None else data.decode()


def test_load(kunit: Path) -> None:
    overlay = load_overlay(kunit)
    assert [(name, mode) for name, _, mode in overlay.files] == [
        ("drivers/iommu/tests/.kunitconfig", "100644"),
        ("drivers/iommu/tests/iommu_kunit.c", "100644"),
        ("drivers/iommu/tests/more/run.sh", "100755"),
    ]
    assert overlay.hooks == ((toy.IOMMU_C, HOOK),)


def test_key_is_the_content(kunit: Path) -> None:
    key = load_overlay(kunit).key
    (kunit / "drivers/iommu/tests/x.c~").write_text("", encoding="utf-8")
    assert load_overlay(kunit).key == key
    (kunit / "drivers/iommu/tests/more/run.sh").chmod(0o644)
    less = load_overlay(kunit).key
    (kunit / "overlay.toml").write_text(DESCRIPTION.replace("kunit.c", "k.c"), encoding="utf-8")
    hooked = load_overlay(kunit).key
    (kunit / "drivers/iommu/tests/iommu_kunit.c").write_text("int x;\n", encoding="utf-8")
    assert len({key, less, hooked, load_overlay(kunit).key}) == 4


def test_lay(kunit: Path, store: Objects, toy_work: Path) -> None:
    tree = store.tree_of("HEAD")
    laid = Layer(load_overlay(kunit), store).over(tree, "6.12 baseline")
    changed = toy.git("diff", "--raw", "--abbrev=4", tree, laid, cwd=toy_work).splitlines()
    assert [(line.split()[0:2], line.split()[4:]) for line in changed] == [
        ([":100644", "100644"], ["M", toy.IOMMU_C]),
        ([":000000", "100644"], ["A", "drivers/iommu/tests/.kunitconfig"]),
        ([":000000", "100644"], ["A", "drivers/iommu/tests/iommu_kunit.c"]),
        ([":000000", "100755"], ["A", "drivers/iommu/tests/more/run.sh"]),
    ]
    assert show(store, laid, toy.IOMMU_C) == toy.FILES[toy.IOMMU_C] + HOOK
    assert list(store.folder.iterdir()) == []


def test_lay_twice_is_lay_once(kunit: Path, store: Objects) -> None:
    layer = Layer(load_overlay(kunit), store)
    laid = layer.over(store.tree_of("HEAD"), "x")
    assert layer.over(laid, "x") == laid


def test_lay_matches_what_git_would_make(kunit: Path, store: Objects, toy_work: Path) -> None:
    odd = {'drivers/iommu/grüße \\ ".txt': "odd\n", "drivers/iommu/tests/old.c": "old\n"}
    toy.write_tree(toy_work, odd)
    (toy_work / "latin-\udce4").write_text("not UTF-8\n", encoding="utf-8")
    toy.commit_all(toy_work, "odd names")
    laid = Layer(load_overlay(kunit), store).over(store.tree_of("HEAD"), "x")
    (toy_work / "drivers/iommu/tests/more").mkdir(parents=True)
    for name, data, mode in load_overlay(kunit).files:
        (toy_work / name).write_bytes(data)
        (toy_work / name).chmod(int(mode[3:], 8))
    with (toy_work / toy.IOMMU_C).open("a", encoding="utf-8") as file:
        file.write(HOOK)
    assert laid == store.tree_of(toy.commit_all(toy_work, "by hand"))


def test_an_empty_description_changes_nothing(kunit: Path, store: Objects) -> None:
    (kunit / "overlay.toml").write_text("", encoding="utf-8")
    tree = store.tree_of("HEAD")
    assert Layer(load_overlay(kunit), store).over(tree, "x") == tree


def test_no_newline_at_the_end(kunit: Path, store: Objects, toy_work: Path) -> None:
    (toy_work / toy.IOMMU_C).write_bytes(b"int a; /* \xe4 */")
    toy.commit_all(toy_work, "cut")
    laid = Layer(load_overlay(kunit), store).over(store.tree_of("HEAD"), "x")
    assert store.read_file(laid, toy.IOMMU_C) == b"int a; /* \xe4 */\n" + HOOK.encode()


def test_files_replace_files_and_folders(kunit: Path, store: Objects, toy_work: Path) -> None:
    """A copied file wins over a file, a folder of its name, and a file in place of its folder."""
    toy.write_tree(
        toy_work,
        {
            "drivers/iommu/tests/iommu_kunit.c": "older\n",
            "drivers/iommu/tests/.kunitconfig/x": "a folder\n",
            "drivers/iommu/tests/more": "a file\n",
        },
    )
    toy.commit_all(toy_work, "in the way")
    laid = Layer(load_overlay(kunit), store).over(store.tree_of("HEAD"), "x")
    assert show(store, laid, "drivers/iommu/tests/iommu_kunit.c") == "int suite;\n"
    assert show(store, laid, "drivers/iommu/tests/.kunitconfig") == "CONFIG_KUNIT=y\n"
    assert show(store, laid, "drivers/iommu/tests/more/run.sh") == "#!/bin/sh\n"


def test_hook_into_a_copied_file(kunit: Path, store: Objects) -> None:
    path = "drivers/iommu/tests/iommu_kunit.c"
    text = f'{DESCRIPTION}\n[[hook]]\nfile = "{path}"\nappend = "int more;"\n'
    (kunit / "overlay.toml").write_text(text, encoding="utf-8")
    laid = Layer(load_overlay(kunit), store).over(store.tree_of("HEAD"), "x")
    assert show(store, laid, path) == "int suite;\nint more;\n"


def test_hook_without_its_file(kunit: Path, store: Objects, toy_work: Path) -> None:
    (toy_work / toy.IOMMU_C).unlink()
    toy.commit_all(toy_work, "gone")
    with pytest.raises(VerdictError, match=f"6.1 baseline: there is no file {toy.IOMMU_C}"):
        Layer(load_overlay(kunit), store).over(store.tree_of("HEAD"), "6.1 baseline")


COPY = '[[copy]]\nfrom = "drivers"\nto = "drivers"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[copy]\n", "overlay.toml: .*line 1"),
        ("x = 1\n", r"unknown table \[\[x\]\]"),
        ("[copy]\nfrom = 'a'\nto = 'b'\n", "with two brackets"),
        ("copy = 'x'\n", "with two brackets"),
        ("copy = ['x']\n", "copy.* number 1: needs exactly the keys from and to"),
        ("[[copy]]\nfrom = 'a'\n", "needs exactly the keys from and to"),
        (COPY + "mode = 1\n", "needs exactly the keys from and to"),
        ("[[hook]]\nfile = 'a'\nappend = 3\n", "append must be a string"),
        ("[[hook]]\nfile = 'a'\nappend = '  '\n", "append must be a string"),
        ("[[hook]]\nfile = '../a'\nappend = 'x'\n", "'../a' is not a path inside a tree"),
        ("[[copy]]\nfrom = 'drivers'\nto = '/etc'\n", "'/etc' is not a path inside"),
        ("[[copy]]\nfrom = '../x'\nto = 'x'\n", "'../x' is not a path inside"),
        ("[[copy]]\nfrom = 'drivers'\nto = 'a/.git'\n", "is not a path inside a tree"),
        ("[[copy]]\nfrom = 'nothing'\nto = 'x'\n", "there is no nothing in"),
        (COPY + COPY, "two files would be copied to drivers/iommu/tests"),
    ],
)
def test_bad_descriptions(kunit: Path, text: str, complaint: str) -> None:
    (kunit / "overlay.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        load_overlay(kunit)


def test_no_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"overlay\.toml: No such file"):
        load_overlay(tmp_path)


@pytest.mark.parametrize("target", ["iommu_kunit.c", "more", "/etc/passwd", "nowhere"])
def test_links_are_refused(kunit: Path, target: str) -> None:
    (kunit / "drivers/iommu/tests/link").symlink_to(target)
    with pytest.raises(UserError, match="tests/link: only plain files"):
        load_overlay(kunit)


def test_odd_names_are_refused(kunit: Path) -> None:
    (kunit / "drivers/iommu/tests/a b.c").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="has characters other than A-Z"):
        load_overlay(kunit)
