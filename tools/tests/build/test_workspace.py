# SPDX-License-Identifier: GPL-2.0-only
"""The configurations that a workspace reads."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from iommuq.bases.basefile import load_spec
from iommuq.build.workspace import Workspace
from iommuq.guests.machine import load_machine
from iommuq.system.files import project_root


def test_a_light_kernel_is_built_in_a_directory_of_its_own() -> None:
    """In that of the other one, each of the two would be built from scratch each time."""
    base: Any = SimpleNamespace(spec=load_spec("7.3"))
    nothing: Any = None
    workspace = Workspace(project_root(), base, nothing, nothing)
    machine = load_machine("q35-intel")
    usual = workspace.firmware_fragments(machine)
    light = workspace.firmware_fragments(replace(machine, config=(*machine.config, "light.config")))
    assert (usual.variant, light.variant) == ("firmware", "light")
    assert usual.key != light.key
