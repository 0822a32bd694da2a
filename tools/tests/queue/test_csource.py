# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.queue.csource` and `iommuq.queue.csource`: C as the kernel writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy
from cpieces import PIECES
from iommuq.bases.sources import Base
from iommuq.queue.csource import descend, is_kernel_source, parse, touched_functions
from iommuq.queue.model import load_queue
from iommuq.queue.steps import make_steps
from iommuq.system.git.objects import Objects

LOOPS = b"""\
static int __init first(struct group *group)
{
	struct device *device;

	for_each_group_device(group, device) {
		if (device->direct)
			return -EINVAL;
	}
	list_for_each_entry(device, &group->list, list)
		if (!device->iommu)
			continue;
	for_each_pci_dev(device) /* all */
		put(device);
	return group_for_each_dev(group, NULL, first) + bus_for_each_dev(group);
}

#ifdef CONFIG_X
char *group_for_each_dev(struct group *group, void *data, int (*fn)(struct group *))
{
	group_for_each_dev(group, data, fn);
	return "for_each_string(x) {";
}
#else
char *group_for_each_dev(struct group *group, void *data, int (*fn)(struct group *))
{
	return NULL;
}
#endif
#define for_each_group_device(group, device) \\
	list_for_each_entry(device, &(group)->devices, list)
"""


def test_macros_that_are_loops() -> None:
    source = parse(LOOPS)
    assert [source.line(start) for start in sorted(source.loops)] == [5, 9, 12]
    assert source.text == LOOPS
    for function in source.functions:
        # What is before the name is the compiler's business; the body is ours.
        assert not function.body.has_error
    kinds = [node.type for node in descend(source.functions[0].body)]
    assert kinds.count("while_statement") == 3
    loop = next(
        node for node in descend(source.functions[0].body) if node.type == "while_statement"
    )
    assert source.of(loop).startswith(b"for_each_group_device(group, device) {\n")


def test_functions_and_their_lines() -> None:
    found = [(each.name, each.start, each.end) for each in parse(LOOPS).functions]
    assert found == [
        ("first", 1, 15),
        ("group_for_each_dev", 18, 22),
        ("group_for_each_dev", 24, 27),
    ]


def test_lines_of_an_edit() -> None:
    source = parse(b"int f(void)\n{\n\treturn 1;\n}")
    start = source.text.index(b"1")
    assert source.text[slice(*source.lines(start, start + 1))] == b"\treturn 1;"
    # The last line need not end.
    assert source.lines(len(source.text) - 1, len(source.text)) == (25, 26)


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_anything_is_parsed(pieces: list[str]) -> None:
    text = " ".join(pieces).encode()
    source = parse(text)
    for function in source.functions:
        assert source.of(function.body)[:1] in (b"{", b"")
        assert 1 <= function.start <= function.end <= text.count(b"\n") + 1


def test_deep_nesting_is_no_trouble() -> None:
    depth = 20_000
    source = parse(b"int f(void)\n{\n\treturn " + b"(" * depth + b"1" + b")" * depth + b";\n}\n")
    assert [each.name for each in source.functions] == ["f"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("drivers/iommu/iommu.c", True),
        ("mm/slub.c", True),
        ("include/linux/iommu.h", False),
        ("tools/testing/selftests/iommu/iommufd.c", False),
        ("scripts/kconfig/conf.c", False),
        ("drivers/iommu/Kconfig", False),
    ],
)
def test_sources_of_the_kernel(path: str, expected: bool) -> None:
    assert is_kernel_source(path) is expected


def test_touched_functions(toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path) -> None:
    old = "int ret = 7;\n\n\tif (!dev)\n\t\treturn -EINVAL;\n\treturn ret;\n"
    step_3 = (
        "static int toy_step_3(struct device *dev)\n{\n\tint ret = 3;\n\n\tif (!dev)\n"
        "\t\treturn -EINVAL;\n\treturn ret;\n}\n\n"
    )
    maker = queue_maker
    baseline = maker.mail("toy: back", {toy.IOMMU_C: ("int ret = 1;", "int ret = 100;")})
    maker.add("baseline/0001-back.patch", baseline)
    edits: dict[str, tuple[str, str] | str | None] = {
        # Only taken out, and with a comment that moves all below.
        toy.IOMMU_C: (old, "int ret = 7;\n\n\treturn ret;\n"),
        "include/linux/iommu.h": ("struct device;", "struct device;\nstatic int x;"),
        "drivers/iommu/new.c": "#if X\nint new_one(void)\n{\n\treturn 1;\n}\n#else\n"
        "int new_one(void)\n{\n\treturn 2;\n}\n#endif\n",
        "tools/toy.c": "int main(void)\n{\n}\n",
    }
    maker.add("resv/0001-one.patch", maker.mail("toy: one", edits))
    maker.add(
        "resv/0002-two.patch",
        maker.mail("toy: two", {toy.IOMMU_C: ("int ret = 7;", "int ret = 70;")}),
    )
    # A whole function goes: those on both sides of it are not touched.
    maker.add("resv/0003-three.patch", maker.mail("toy: three", {toy.IOMMU_C: (step_3, "")}))
    maker.add(
        "resv/0004-four.patch",
        maker.mail("toy: four", {toy.IOMMU_C: ("#include <linux/iommu.h>", "#include <x.h>\n\n")}),
    )
    queue = load_queue(maker.folder, "6.12")
    steps = make_steps(toy_base, queue, toy.OVERLAY)
    objects = tmp_path / "objects"
    objects.mkdir()
    found = touched_functions(Objects(toy_base.git_dir, objects), steps)
    assert [(each.path, each.name, each.patches) for each in found] == [
        ("drivers/iommu/iommu.c", "toy_step_7", ("0001", "0002")),
        ("drivers/iommu/new.c", "new_one", ("0001",)),
    ]
