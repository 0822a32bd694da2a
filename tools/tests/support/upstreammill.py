# SPDX-License-Identifier: GPL-2.0-only
"""A made driver in two versions, and cases made of it: by machine, and by hand."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.queue.upstream.compare.judge import Grade
from upstreamcases import Case, Versions

PATH = "drivers/iommu/mill.c"

OLD = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/slab.h>

struct mill {
	struct device *dev;
	unsigned int wheels;
	bool running;
};

static int mill_start(struct mill *mill)
{
	int ret;

	if (!mill->dev)
		return -EINVAL;

	ret = mill_power(mill, true);
	if (ret)
		return ret;

	mill->running = true;
	return 0;
}

static void mill_stop(struct mill *mill)
{
	mill_power(mill, false);
	mill->running = false;
}

static int mill_grind(struct mill *mill, const void *grain, size_t length)
{
	size_t done = 0;
	int ret;

	if (!mill->running)
		return -ENODEV;

	while (done < length) {
		ret = mill_feed(mill, grain + done);
		if (ret < 0)
			return ret;
		done += ret;
	}

	return 0;
}

static int mill_flush(struct mill *mill)
{
	if (!mill->running)
		return -ENODEV;

	return mill_wait(mill, MILL_TIMEOUT);
}

static int mill_remove(struct mill *mill)
{
	dev_info(mill->dev, "removed\\n");
	mill_stop(mill);
	kfree(mill);
	return 0;
}

static int mill_probe(struct device *dev)
{
	struct mill *mill;

	mill = kzalloc(sizeof(*mill), GFP_KERNEL);
	if (!mill)
		return -ENOMEM;

	mill->dev = dev;
	mill->wheels = 1;
	return mill_start(mill);
}
"""

NEW = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/mutex.h>
#include <linux/slab.h>

struct mill {
	struct device *dev;
	struct mutex grain_lock;
	unsigned int wheels;
	bool running;
};

static bool mill_is_worn(struct mill *mill)
{
	unsigned int hours = mill_hours(mill);

	if (hours > MILL_MAX_HOURS)
		return true;
	return mill_temperature(mill) > MILL_MAX_TEMPERATURE;
}

static int mill_start(struct mill *mill)
{
	int ret;

	if (!mill->dev)
		return -EINVAL;

	if (mill_is_worn(mill)) {
		dev_warn(mill->dev, "worn, not started\\n");
		return -EIO;
	}

	ret = mill_power(mill, true);
	if (ret)
		return ret;

	mill->running = true;
	return 0;
}

static void mill_stop(struct mill *mill)
{
	mutex_lock(&mill->grain_lock);
	mill_power(mill, false);
	mill->running = false;
	mutex_unlock(&mill->grain_lock);
}

static int mill_grind(struct mill *mill, const void *grain, size_t length)
{
	size_t done = 0;
	int ret;

	if (!mill->running)
		return -ENODEV;

	if (length > MILL_MAX_LENGTH || mill->wheels == 0)
		return -E2BIG;

	while (done < length) {
		ret = mill_feed_wheels(mill, grain + done, mill->wheels);
		if (ret < 0)
			return ret;
		done += ret;
	}

	return 0;
}

static int mill_flush(struct mill *mill)
{
	if (!mill->running)
		return -ENODEV;

	return mill_wait_interruptible(mill, MILL_TIMEOUT);
}

static int mill_remove(struct mill *mill)
{
	mill_stop(mill);
	kfree(mill);
	return 0;
}

static int mill_probe(struct device *dev)
{
	struct mill *mill;

	mill = kzalloc(sizeof(*mill), GFP_KERNEL);
	if (!mill)
		return -ENOMEM;

	mutex_init(&mill->grain_lock);
	mill->dev = dev;
	mill->wheels = mill_count_wheels(dev);
	return mill_start(mill);
}
"""

CHECK = """\
	if (length > MILL_MAX_LENGTH || mill->wheels == 0)
		return -E2BIG;

"""
WORN = NEW[NEW.index("static bool mill_is_worn") : NEW.index("static int mill_start")]


def swap(text: str, *pairs: tuple[str, str]) -> str:
    """Replace texts that must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def mechanical() -> Iterator[Case]:
    """Yield what can be made of every change between the two versions."""
    versions = Versions(PATH, OLD, NEW)
    for number in range(len(versions.changes)):
        yield from versions.cases(number)


def by_hand() -> Iterator[Case]:
    """Yield what takes some thought to make."""
    checked = swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done"))
    worn = swap(
        OLD,
        ("static int mill_start", f"{WORN}static int mill_start"),
        ("\tret = mill_power", "\tif (mill_is_worn(mill))\n\t\treturn -EIO;\n\n\tret = mill_power"),
    )
    quiet = swap(OLD, ('\tdev_info(mill->dev, "removed\\n");\n', ""))
    counted = swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);"))

    def case(name: str, after: str, target: str | dict[str, str], truth: Grade) -> Case:
        files = target if isinstance(target, dict) else {PATH: target}
        return Case(name, {PATH: OLD}, {PATH: after}, files, truth)

    there, absent, partly = Grade.DRIFT, Grade.ABSENT, Grade.PARTLY
    # The same, written differently.
    yield case(
        "a helper of the patch written out",
        swap(
            OLD,
            (
                "static int mill_grind",
                "static bool mill_is_full(struct mill *mill, size_t bytes)\n{\n"
                "\treturn bytes > MILL_MAX_LENGTH || mill->wheels == 0;\n}\n\n"
                "static int mill_grind",
            ),
            (
                "\twhile (done",
                "\tif (mill_is_full(mill, length))\n\t\treturn -E2BIG;\n\n\twhile (done",
            ),
        ),
        checked,
        there,
    )
    yield case(
        "put into a helper there",
        checked,
        swap(
            OLD,
            (
                "static int mill_grind",
                "static bool mill_takes_not(struct mill *m, size_t bytes)\n{\n"
                "\treturn bytes > MILL_MAX_LENGTH || m->wheels == 0;\n}\n\nstatic int mill_grind",
            ),
            (
                "\twhile (done",
                "\tif (mill_takes_not(mill, length))\n\t\treturn -E2BIG;\n\n\twhile (done",
            ),
        ),
        there,
    )
    yield case(
        "conditions in another order",
        checked,
        swap(
            checked,
            (
                "length > MILL_MAX_LENGTH || mill->wheels == 0",
                "mill->wheels == 0 || length > MILL_MAX_LENGTH",
            ),
        ),
        there,
    )
    yield case("in a file of another name", checked, {"drivers/iommu/mill/core.c": checked}, there)
    yield case(
        "a function of the patch has another name there",
        worn,
        worn.replace("mill_is_worn", "mill_worn_out"),
        there,
    )
    yield case(
        "the function that it changes has another name there",
        checked,
        checked.replace("mill_grind", "mill_grind_grain"),
        there,
    )
    yield case(
        "with something in between",
        worn,
        swap(worn, ("\tret = mill_power", "\tmill_count(mill);\n\tret = mill_power")),
        there,
    )
    yield case(
        "with other words in a message",
        swap(
            OLD,
            (
                "\tmill_stop(mill);\n\tkfree",
                '\tdev_info(mill->dev, "mill is gone\\n");\n\tmill_stop(mill);\n\tkfree',
            ),
            ('\tdev_info(mill->dev, "removed\\n");\n', "\tmill_drain(mill);\n"),
        ),
        swap(
            OLD,
            (
                "\tmill_stop(mill);\n\tkfree",
                '\tdev_info(mill->dev, "the mill has left\\n");\n\tmill_stop(mill);\n\tkfree',
            ),
            ('\tdev_info(mill->dev, "removed\\n");\n', "\tmill_drain(mill);\n"),
        ),
        there,
    )
    yield case("functions in another order", checked, _moved(checked), there)
    # What only looks like it.
    yield case("another limit", checked, swap(checked, ("wheels == 0", "wheels == 7")), absent)
    yield case(
        "the same check in another function",
        checked,
        swap(OLD, ("\treturn mill_wait(", f"{CHECK}\treturn mill_wait(")),
        absent,
    )
    yield case(
        "a check like those that every function has",
        swap(
            OLD,
            (
                "\tmill_power(mill, false)",
                "\tif (!mill->running)\n\t\treturn;\n\n\tmill_power(mill, false)",
            ),
        ),
        OLD,
        absent,
    )
    yield case(
        "declared and never called",
        worn,
        swap(
            OLD,
            (
                "static int mill_start",
                "static bool mill_is_worn(struct mill *mill);\n\nstatic int mill_start",
            ),
        ),
        partly,
    )
    yield case(
        "defined and never called",
        worn,
        swap(worn, ("\tif (mill_is_worn(mill))\n\t\treturn -EIO;\n\n", "")),
        partly,
    )
    yield case(
        "another cure for the same thing",
        checked,
        swap(OLD, ("\twhile (done", "\tlength = min(length, mill_room(mill));\n\twhile (done")),
        absent,
    )
    yield case(
        "what it removes is there under another name",
        swap(OLD, ("\tmill->wheels = 1;\n", "")),
        swap(OLD, ("mill->wheels = 1", "mill->wheel_count = 1")),
        absent,
    )
    yield case("the file is gone", quiet, {"drivers/iommu/other.c": "int i;\n"}, absent)
    yield case("the file is empty", quiet, "", absent)
    yield case(
        "taken back and done otherwise",
        counted,
        swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_guess_wheels(2);")),
        absent,
    )
    yield case(
        "the arguments the other way round",
        swap(OLD, ("mill->wheels = 1;", "mill_copy_wheels(mill, dev);")),
        swap(OLD, ("mill->wheels = 1;", "mill_copy_wheels(dev, mill);")),
        absent,
    )
    yield case(
        "what is new is there, and the old as well",
        counted,
        swap(
            OLD,
            ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);\n\tmill->wheels = 1;"),
        ),
        partly,
    )


def _moved(text: str) -> str:
    start, end = text.index("static int mill_grind"), text.index("static int mill_flush")
    block = text[start:end]
    return text[:start] + text[end:] + "\n" + block
