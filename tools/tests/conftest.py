# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures for every test: a hermetic environment, and a toy base with its queue."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lanes_toy
import toy
import toykernel
from iommuq.bases.basefile import load_spec
from iommuq.bases.sources import Base
from iommuq.guests import uml
from iommuq.queue.edit import edit
from iommuq.queue.model import Queue, load_queue
from iommuq.results.store import Store
from iommuq.system import files
from person import Person
from toykernel import Project

if TYPE_CHECKING:
    from seriesmaker import Series


def pytest_configure() -> None:
    """Let Ctrl-C work in what the tests start.

    A shell that puts us into the background has it ignored, and so do all processes that
    inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def hermetic(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Cut the test off from the user's home, configuration, cache and results.

    A test marked ``real`` keeps the cache and the state directory: what it builds
    takes minutes, and the keys there are content hashes.

    :return: the directory that stands in for the user's home.
    """
    home = tmp_path_factory.mktemp("home")
    if request.node.get_closest_marker("real"):
        cache, state = files.cache_dir(), files.state_dir()
    else:
        cache, state = home / "iommuq-cache", home / "iommuq-state"
    for name in list(os.environ):
        if name.startswith(("GIT_", "IOMMUQ_", "XDG_")) or name == "LANGUAGE":
            monkeypatch.delenv(name)
    for name, value in toy.hermetic_environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IOMMUQ_CACHE_DIR", str(cache))
    monkeypatch.setenv("IOMMUQ_STATE_DIR", str(state))
    time.tzset()
    return home


@pytest.fixture
def toy_tree(tmp_path: Path) -> Path:
    """Return a directory that holds the toy kernel's files, without git."""
    where = tmp_path / "fakelinux"
    toy.write_tree(where)
    return where


@pytest.fixture(scope="session")
def toy_repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ``work`` and ``repo.git`` of the toy kernel, to be copied."""
    where = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in toy.hermetic_environment(where).items():
            patch.setenv(name, value)
        toy.write_tree(where / "work")
        toy.git("init", "--quiet", "--template=", "--initial-branch=base", "work", cwd=where)
        toy.commit_all(where / "work", "Linux 6.12.117")
        toy.git("clone", "--quiet", "--template=", "--bare", "work", "repo.git", cwd=where)
    return where


@pytest.fixture
def toy_work(tmp_path: Path, toy_repositories: Path) -> Path:
    """Return a git work tree of the toy kernel with one commit."""
    return Path(shutil.copytree(toy_repositories / "work", tmp_path / "toy-work"))


@pytest.fixture
def toy_base(
    tmp_path: Path, toy_work: Path, toy_repositories: Path, monkeypatch: pytest.MonkeyPatch
) -> Base:
    """Return a base whose bare repository holds the toy kernel.

    Its folder is ``tmp_path/patches/6.12``, and ``IOMMUQ_ROOT`` is ``tmp_path``.
    """
    git_dir = tmp_path / "bases" / "6.12" / "repo.git"
    shutil.copytree(toy_repositories / "repo.git", git_dir)
    folder = tmp_path / "patches" / "6.12"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.toml").write_text(
        'name = "6.12"\ntitle = "Toy Linux 6.12"\n\n'
        f'[source]\nprovider = "directory"\npath = "{toy_work}"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    return Base(
        spec=load_spec("6.12"),
        version="6.12.117-1",
        sha256="0" * 64,
        kernel="6.12.117",
        commit=toy.git("rev-parse", "HEAD", cwd=toy_work),
        git_dir=git_dir,
    )


@pytest.fixture
def queue_maker(tmp_path: Path, toy_work: Path) -> toy.QueueMaker:
    """Return a maker of patches for the toy kernel, with no patch yet."""
    maker = toy.QueueMaker(folder=tmp_path / "patches" / "6.12", work=toy_work)
    maker.write_series("")
    return maker


@pytest.fixture
def toy_queue(queue_maker: toy.QueueMaker) -> Queue:
    """Return a queue for the toy kernel: a baseline patch, and two of a series."""
    queue_maker.three()
    return load_queue(queue_maker.folder, "6.12")


@pytest.fixture
def person(toy_base: Base, toy_queue: Queue, tmp_path: Path) -> Person:
    """Return somebody at work in an edit tree of the toy queue."""
    tree = edit(toy_base, toy_queue, tmp_path / "linux")
    return Person(toy_base, toy_queue.folder, tree)


@pytest.fixture(name="toy")
def proven_queue(tmp_path: Path) -> Queue:
    """Return the queue of two patches that `prooftoy` proves; no kernel stands behind it."""
    return lanes_toy.queue(tmp_path, "0001-mend", "0002-clean-up")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return results that nothing else looks at."""
    return Store(tmp_path / "results.sqlite")


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory to put patches into; b4 runs in our own process."""
    # Here and not above: b4 takes its time to be imported.
    from mailfetched import b4_in_process

    return b4_in_process(tmp_path, monkeypatch)


@pytest.fixture
def series(tmp_path: Path, toy_work: Path) -> Series:
    """Return a series of two patches with a cover letter, as it was mailed."""
    from mailfetched import two_patches

    return two_patches(tmp_path, toy_work)


@pytest.fixture
def sims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for kernels of `fakeguest`; temporary folders are made beside it."""
    # A library for the processor state of real kernels takes a compiler to make.
    monkeypatch.setattr(uml, "environment", dict)
    for name in ("sims", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "sims"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the real lane last: what is quick fails first.

    Within it, those that look into the cache for a tree or a kernel come after those
    that put one there.  The longest of the others is first, as no worker is to wait for it.
    """
    look = ("test_guests_real", "test_ktap_kernel")

    def place(item: pytest.Item) -> tuple[bool, bool]:
        real = item.get_closest_marker("real") is not None
        return real, item.path.stem in look if real else item.path.stem != "test_tutorial"

    items.sort(key=place)


@pytest.fixture
def cold(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run nothing yet."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    return toykernel.copy_project(template, tmp_path / "project", warm=False)


@pytest.fixture
def warm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    return toykernel.copy_project(template, tmp_path / "project", warm=True)
