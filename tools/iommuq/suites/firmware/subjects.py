# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that scenarios run on: a step of a queue, or a kernel built elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from iommuq.bases import dotconfig
from iommuq.build.image import Image, ImageDamaged, build_image, find_image, image_key
from iommuq.build.workspace import Workspace
from iommuq.firmware.kernels import Kernel
from iommuq.results.known import KnownFailures, load_known
from iommuq.results.store import Store, SuiteRun
from iommuq.suites.firmware.cases import Case, stored
from iommuq.suites.firmware.run import run_scenarios
from iommuq.suites.kunit import Subject
from iommuq.system import arches
from iommuq.system.errors import InfraError
from iommuq.system.files import file_sha256, hash_of

#: The step in the results of a kernel built elsewhere.
AS_IT_IS = "as-is"
_ARCH = "x86_64"


@dataclass(frozen=True)
class Tested:
    """A kernel, or the kernels that are built from one tree.

    :ivar title: name with the version, for messages.
    :ivar kernel: returns the kernel for a case; the second argument: build it if it is
        missing, else return None.
    """

    title: str
    subject: Subject
    kernel: Callable[[Case, bool], Kernel | None]
    known: KnownFailures = field(default_factory=KnownFailures)

    def run(self, cases: Sequence[Case], *, again: bool = False) -> list[SuiteRun]:
        """Build the kernels for cases and run them; see `run_scenarios`."""
        groups: dict[str, tuple[Kernel, list[Case]]] = {}
        for case in cases:
            kernel = self.kernel(case, True)
            assert kernel is not None
            groups.setdefault(kernel.key, (kernel, []))[1].append(case)
        done: dict[Case, SuiteRun] = {}
        for kernel, some in groups.values():
            runs = run_scenarios(kernel, some, self.subject, again=again)
            done.update(zip(some, runs, strict=True))
        return [done[case] for case in cases]

    def stored(self, cases: Sequence[Case], store: Store) -> list[SuiteRun | None]:
        """Return the stored runs of cases, without building or running anything."""
        found: list[SuiteRun | None] = []
        for case in cases:
            kernel = self.kernel(case, False)
            found.append(None if kernel is None else stored(kernel, case, self.subject, store))
        return found


def from_image(image: Image, name: str, release: str) -> Kernel:
    """Return a kernel that was built here.

    Its key is a hash of its bytes: a patch to code that is not compiled in changes no result.

    :raises InfraError: its configuration or image is missing or damaged.
    """
    config, path = image.folder / ".config", image.folder / image.arch.image
    try:
        text = config.read_text("utf-8")
        words = (image.check() or file_sha256(path), hash_of(text))
    except OSError as error:
        raise InfraError(f"{error.filename}: {error.strerror}", hint="remove that image") from error
    key = hash_of(release, *words)
    options = dotconfig.parse(text)
    return Kernel(name, release, "", path, (), options, key, words[0], built=True)


def foreign(kernel: Kernel) -> Tested:
    """Return the subject for a kernel from an image or a package."""
    title = f"Linux {kernel.release}" + (f" ({kernel.version})" if kernel.version else "")
    subject = Subject(kernel.name, AS_IT_IS, kernel.release)
    return Tested(title, subject, lambda _case, _build: kernel)


def queued(base: str, at: str | None) -> Tested:
    """Return the subject for a step of a queue.

    :param at: the step; None: the whole queue.
    :raises UserError: there is no such base or step, or the base's files are malformed.
    """
    workspace = Workspace.open(base)
    step = workspace.step(at)
    own, arch = workspace.base, arches.get(_ARCH)
    title = f"Linux {own.kernel} ({own.version}), {step.label}"
    made: dict[str, Kernel | None] = {}

    def kernel(case: Case, build: bool) -> Kernel | None:
        fragments = workspace.firmware_fragments(case.machine)
        if fragments.key not in made:
            key = image_key(step, arch, fragments)
            if build:
                image: Image | None = build_image(workspace, step, arch, fragments)
            else:
                image = find_image(key, arch)
            try:
                found = None if image is None else from_image(image, title, own.kernel)
            except ImageDamaged:
                return kernel(case, build)
            made[fragments.key] = found
        return made[fragments.key]

    subject = Subject(base, step.label, own.kernel)
    return Tested(title, subject, kernel, load_known(workspace.queue))
