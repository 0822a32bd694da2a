# SPDX-License-Identifier: GPL-2.0-only
"""Every base takes what its kernels for KUnit are asked to be; nothing is built.

A symbol that an older kernel has no prompt for is noticed here, and not by the first who
wants that kernel on that architecture.
"""

from __future__ import annotations

import pytest

from iommuq.bases import basefile
from iommuq.build import directory
from iommuq.build.workspace import Workspace
from iommuq.system import arches, files

pytestmark = pytest.mark.real


@pytest.mark.parametrize("arch", arches.names())
@pytest.mark.parametrize("base", [spec.name for spec in basefile.list_specs()])
def test_base_can_be_configured(base: str, arch: str) -> None:
    workspace = Workspace.open(base)
    wanted = arches.get(arch)
    fragments = workspace.fragments(wanted)
    with directory.hold(workspace.base):
        kdir = directory.enter(workspace.base, workspace.step(None), wanted, fragments.variant)
        directory.configure(kdir, fragments, files.new_log(f"test-{base}-{arch}"))
    assert (kdir.objects / ".config").is_file()
