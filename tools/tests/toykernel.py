# SPDX-License-Identifier: GPL-2.0-only
"""A toy kernel that goes the whole way: configured, compiled and booted in milliseconds.

The processes are real (git, make, gcc, a kunit.py), and so are the files; only the
kernel is none.  What it prints, and what its build prints, has the form of Linux's.

Variables that its build files and the kernel itself heed, none of which changes a key:

``TOY_TRACE``
    a file that make and kunit.py each append a line to when they are called.
``TOY_STALL``
    the stage (``fetch``, ``checkout``, ``config``, ``build``, ``boot``) that never ends;
    it makes the file ``TOY_STALLED`` when it is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import toy

#: The name of the base.
BASE = "toy"
IOMMU_C = "drivers/iommu/iommu.c"
SUITE_C = "kunit/drivers/iommu/tests/iommu_kunit.c"
FRAGMENT = "kunit/configs/um.config"
KNOWN = "kunit/known-failures.toml"
#: Seconds to wait for what takes a moment, on a machine that is busy with other things.
PATIENCE = 60.0

_MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 117
EXTRAVERSION =

$(if $(TOY_TRACE),$(shell echo "make $(MAKECMDGOALS)" >> $(TOY_TRACE)))
objects := $(O)/init/main.o $(O)/drivers/iommu/iommu.o $(O)/arch/um/kernel/reboot.o
include drivers/iommu/Makefile arch/um/Makefile

linux: $(O)/linux

$(O)/linux: $(objects)
	@echo '  LINK linux'
	@gcc $(CFLAGS_vmlinux) -o $@ $^

$(O)/%.o: %.c $(O)/include/autoconf.h drivers/iommu/Makefile
	@echo '  CC      $*.o'
	@mkdir -p $(@D)
	@if [ "$$TOY_STALL" = build ]; then \\
		echo half > $@; touch "$$TOY_STALLED"; sleep 600; fi
	@gcc -Wall -I$(CURDIR)/include -include $(O)/include/autoconf.h -MMD \\
		$(CFLAGS_$(@F)) -c -o $@ $(CURDIR)/$<

$(O)/include/autoconf.h: $(O)/.config
	@mkdir -p $(@D)
	@sed -n 's/^CONFIG_\\(.*\\)=y$$/#define CONFIG_\\1 1/p' $< > $@

olddefconfig:
	@$(TOY_PYTHON) scripts/olddefconfig.py $(O)/.config Kconfig lib/Kconfig drivers/iommu/Kconfig \\
		drivers/iommu/tests/Kconfig

.PHONY: linux olddefconfig
-include $(objects:.o=.d)
"""

_MAIN_C = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <kunit/test.h>

/* The suites of the overlay; without it there are none. */
__attribute__((weak)) struct kunit_suite *kunit_suites[] = { NULL };

static int matches(const char *glob, struct kunit_suite *suite, struct kunit_case *test)
{
	char name[200];

	snprintf(name, sizeof(name), strchr(glob, '.') ? "%s.%s" : "%s", suite->name, test->name);
	return !*glob || !fnmatch(glob, name, 0);
}

static int count(const char *glob, struct kunit_suite *suite)
{
	struct kunit_case *test;
	int found = 0;

	for (test = suite->test_cases; test->name; test++)
		found += matches(glob, suite, test);
	return found;
}

static int run_suite(const char *glob, struct kunit_suite *suite)
{
	int number = 0, failed = 0;
	struct kunit_case *test;

	printf("    KTAP version 1\\n    # Subtest: %s\\n", suite->name);
	printf("    1..%d\\n", count(glob, suite));
	for (test = suite->test_cases; test->name; test++) {
		struct kunit state = { test->name, 0, NULL };

		if (!matches(glob, suite, test))
			continue;
		test->run(&state);
		printf("    %sok %d %s", state.failed ? "not " : "", ++number, test->name);
		printf(state.skip ? " # SKIP %s\\n" : "\\n", state.skip);
		failed += state.failed;
	}
	return failed;
}

int main(int argc, char **argv)
{
	const char *glob = "", *stall = getenv("TOY_STALL");
	struct kunit_suite **suite;
	int i, number = 0;

	setlinebuf(stdout);
	puts("Linux version 6.12.117 (toy)");
	for (i = 1; i < argc; i++)
		if (!strncmp(argv[i], "kunit.filter_glob=", 18))
			glob = argv[i] + 18;
	if (stall && !strcmp(stall, "boot")) {
		fclose(fopen(getenv("TOY_STALLED"), "w"));
		sleep(600);
	}
	for (suite = kunit_suites; *suite; suite++)
		number += count(glob, *suite) > 0;
	printf("KTAP version 1\\n1..%d\\n", number);
	number = 0;
	for (suite = kunit_suites; *suite; suite++)
		if (count(glob, *suite) > 0) {
			int failed = run_suite(glob, *suite);

			printf("%sok %d %s\\n", failed ? "not " : "", ++number, (*suite)->name);
		}
	puts("reboot: System halted");
	return 0;
}
"""

_TEST_H = """\
/* SPDX-License-Identifier: GPL-2.0-only */
struct kunit { const char *name; int failed; const char *skip; };
struct kunit_case { const char *name; void (*run)(struct kunit *test); };
struct kunit_suite { const char *name; struct kunit_case *test_cases; };

#define KUNIT_CASE(test_name) { .name = #test_name, .run = test_name }
#define kunit_test_suites(...)	struct kunit_suite *kunit_suites[] = { __VA_ARGS__, NULL }

#define KUNIT_EXPECT_EQ(test, left, right) do {						\\
	int __left = (left), __right = (right);						\\
	if (__left == __right)								\\
		break;									\\
	(test)->failed = 1;								\\
	printf("    # %s: EXPECTATION FAILED at %s:%d\\n", (test)->name, __FILE__, __LINE__);	\\
	printf("    Expected " #left " == " #right ", but\\n");				\\
	printf("        " #left " == %d (0x%x)\\n", __left, __left);			\\
} while (0)
"""

# Of these, the overlay for coverage speaks.
_INIT_H = """\
/* SPDX-License-Identifier: GPL-2.0-only */
#define __uml_exitcall(fn) \\
	__attribute__((destructor)) static void __uml_exitcall_##fn(void) { fn(); }
"""

_IOMMU_C = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <kunit/test.h>

/* What blocking a device with DIRECT regions returns. */
int toy_block(void)
{
	return -22;
}

/* What each of the next two returns is of no importance to the one before. */
int toy_plain(void)
{
	return 2;
}




int toy_driver(void)
{
	return 3;
}
"""

_SUITE_C = """\
// SPDX-License-Identifier: GPL-2.0-only

/* A device that must stay mapped is not blocked. */
static void block_refused(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_block(), -22);
}

/* Any other device is as it was. */
static void plain_kept(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_plain(), 2);
}

static void needs_pci(struct kunit *test)
{
	test->skip = "needs CONFIG_PCI";
}

/* Nobody has mended this yet. */
static void late_device(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_driver(), 4);
}

static void claim(struct kunit *test)
{
	(void)test;
}

static struct kunit_case toy_domain_cases[] = {
	KUNIT_CASE(block_refused),
	KUNIT_CASE(plain_kept),
	KUNIT_CASE(needs_pci),
	{}
};

static struct kunit_suite toy_domain_suite = {
	.name = "toy_domain",
	.test_cases = toy_domain_cases,
};

static struct kunit_case toy_owner_cases[] = {
	KUNIT_CASE(late_device),
	KUNIT_CASE(claim),
	{}
};

static struct kunit_suite toy_owner_suite = {
	.name = "toy_owner",
	.test_cases = toy_owner_cases,
};

kunit_test_suites(&toy_domain_suite, &toy_owner_suite);
"""

# What a fragment asks for is kept if its dependencies, joined by &&, are set.
_OLDDEFCONFIG = r"""# SPDX-License-Identifier: GPL-2.0-only
import os, re, sys, time
from pathlib import Path

config, *files = sys.argv[1:]
text = "".join(Path(name).read_text() for name in files if Path(name).exists())
depends = {}
for block in re.split(r"^(?=config )", text, flags=re.M)[1:]:
    found = re.search(r"^\s+depends on (.*)$", block, re.M)
    depends[block.split()[1]] = found[1].split(" && ") if found else []
asked = set(re.findall(r"^CONFIG_(\w+)=y$", Path(config).read_text(), re.M))
kept = set()
for _ in depends:
    kept |= {name for name in depends if name in asked and kept.issuperset(depends[name])}
lines = [f"CONFIG_{n}=y" if n in kept else f"# CONFIG_{n} is not set" for n in depends]
Path(config).write_text("\n".join(lines) + "\n")
"""

# The kernel's own, as far as iommuq uses it: its options, what it prints, how it fails.
_KUNIT_PY = r"""# SPDX-License-Identifier: GPL-2.0-only
import argparse, logging, os, re, shlex, subprocess, sys, threading, time

os.chdir(os.path.realpath(__file__).split("tools/testing/kunit")[0])
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command")
for name in ("config", "exec"):
    command = commands.add_parser(name)
    command.add_argument("--arch")
    command.add_argument("--build_dir")
    command.add_argument("--kunitconfig", action="append")
commands.choices["exec"].add_argument("--timeout", type=int)
commands.choices["exec"].add_argument("--raw_output", choices=["all", "kunit"])
commands.choices["exec"].add_argument("filter_glob", nargs="?", default="")
args = parser.parse_args()
if "TOY_TRACE" in os.environ:
    with open(os.environ["TOY_TRACE"], "a") as trace:
        trace.write(f"kunit.py {args.command}\n")


def say(text):
    print(time.strftime("[%H:%M:%S] ") + text)


class ConfigError(Exception):
    pass


def parse(path):
    entries = {}
    for line in map(str.strip, open(path)):
        match = re.match(r'CONFIG_(\w+)=(\S+|".*")$|# CONFIG_(\w+) is not set$', line)
        if match:
            entries[match[1] or match[3]] = match[2] or "n"
        elif line and line[0] != "#":
            raise ConfigError("Failed to parse: " + line)
    return entries


def configure():
    say("Configuring KUnit Kernel ...")
    config = os.path.join(args.build_dir, ".config")
    print("Generating .config ...")
    with open(config, "w") as file:
        for name, value in wanted.items():
            line = f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
            file.write(line + "\n")
    if os.environ.get("TOY_STALL") == "config":
        open(os.environ["TOY_STALLED"], "w").close()
        time.sleep(600)
    make = ["make", "ARCH=" + args.arch, "O=" + args.build_dir, "olddefconfig"]
    print("Populating config with:\n$", " ".join(make))
    try:
        subprocess.check_output(make, stderr=subprocess.STDOUT)
    except OSError as error:
        logging.error("Could not call make command: " + str(error))
        return False
    except subprocess.CalledProcessError as error:
        logging.error(error.output.decode())
        return False
    got = parse(config)
    lost = [name for name, value in wanted.items() if got.get(name, "n") != value]
    if lost:
        logging.error("Not all Kconfig options selected in kunitconfig were in the generated"
                      " .config.\nMissing: " + ", ".join(f"CONFIG_{name}=y" for name in lost))
    return not lost


def boot():
    say("Starting KUnit Kernel (1/1)...")
    words = [os.path.join(args.build_dir, "linux")]
    if args.filter_glob:
        words.append("kunit.filter_glob=" + args.filter_glob)
    words += ["kunit.enable=1", "mem=1G", "console=tty", "kunit_shutdown=halt"]
    print("Running tests with:\n$", shlex.join(words))
    kernel = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="backslashreplace")

    def wait():
        try:
            kernel.wait(args.timeout)
        except Exception as error:
            print(error)
            kernel.terminate()
            kernel.wait()

    waiter = threading.Thread(target=wait)
    waiter.start()
    with open(os.path.join(args.build_dir, "test.log"), "w") as log:
        for line in kernel.stdout:
            log.write(line)
            print(line.rstrip())
    waiter.join()
    return True


wanted = {}
for path in args.kunitconfig or [os.path.join(args.build_dir, ".kunitconfig")]:
    for name, value in parse(path).items():
        if wanted.setdefault(name, value) != value:
            raise ConfigError("Multiple values specified for 1 options in kunitconfig:\n"
                              f"CONFIG_{name}={wanted[name]}\n  vs from {path}\n"
                              f"CONFIG_{name}={value}")
begin = time.time()
good = configure() if args.command == "config" else boot()
say(f"Elapsed time: {time.time() - begin:.3f}s\n")
sys.exit(not good)
"""

#: The kernel's source.
FILES: Mapping[str, str] = {
    "Makefile": _MAKEFILE,
    "Kconfig": 'mainmenu "Toy"\nsource "lib/Kconfig"\nsource "drivers/iommu/Kconfig"\n',
    "lib/Kconfig": 'config KUNIT\n\tbool "KUnit"\n\nconfig PCI\n\tbool "PCI"\n',
    "init/main.c": _MAIN_C,
    "include/kunit/test.h": _TEST_H,
    "include/init.h": _INIT_H,
    "include/linux/init.h": "/* SPDX-License-Identifier: GPL-2.0-only */\n",
    "arch/um/Makefile": "# SPDX-License-Identifier: GPL-2.0-only\nCFLAGS_vmlinux := -g\n",
    "arch/um/kernel/reboot.c": "/* SPDX-License-Identifier: GPL-2.0-only */\n",
    "drivers/iommu/Makefile": "# SPDX-License-Identifier: GPL-2.0-only\n",
    "drivers/iommu/Kconfig": 'config IOMMU_SUPPORT\n\tbool "IOMMU"\n\tdepends on PCI\n',
    IOMMU_C: _IOMMU_C,
    "scripts/olddefconfig.py": _OLDDEFCONFIG,
    "tools/testing/kunit/kunit.py": _KUNIT_PY,
    "tools/testing/kunit/configs/default.config": "CONFIG_KUNIT=y\n",
}

#: The project, but for the patches.
PROJECT: Mapping[str, str] = {
    "kunit/overlay.toml": (
        '[[copy]]\nfrom = "drivers/iommu/tests"\nto = "drivers/iommu/tests"\n\n'
        f'[[hook]]\nfile = "{IOMMU_C}"\nappend = """\n\n'
        '#ifdef CONFIG_IOMMU_KUNIT_TEST\n#include "tests/iommu_kunit.c"\n#endif\n"""\n\n'
        '[[hook]]\nfile = "drivers/iommu/Kconfig"\n'
        'append = """\n\nsource "drivers/iommu/tests/Kconfig"\n"""\n'
    ),
    SUITE_C: _SUITE_C,
    "kunit/drivers/iommu/tests/Kconfig": (
        'config IOMMU_KUNIT_TEST\n\tbool "Tests"\n\tdepends on KUNIT && IOMMU_SUPPORT\n'
    ),
    "kunit/drivers/iommu/tests/.kunitconfig": (
        "CONFIG_KUNIT=y\nCONFIG_IOMMU_SUPPORT=y\nCONFIG_IOMMU_KUNIT_TEST=y\n"
    ),
    FRAGMENT: "# As small as it gets.\nCONFIG_PCI=y\n",
    KNOWN: (
        '[[failure]]\ntest = "toy_owner.late_device"\nreason = "nobody mended it"\n'
        'link = "https://example.org/thread"\nexpires = 2999-01-01\n'
    ),
}

# Stands before git in PATH while a stage that is git's is to stall.
_GIT = """\
#!/bin/sh
case "$TOY_STALL $*" in
"fetch "*fast-import* | "checkout "*read-tree*-u*)
	touch "$TOY_STALLED"
	exec sleep 600 ;;
esac
exec {git} "$@"
"""


@dataclass(frozen=True)
class Done:
    """A run of iommuq that has ended."""

    code: int
    out: str
    err: str

    @property
    def cells(self) -> dict[str, list[str]]:
        """The table of `iommuq run`: test -> the word in each column."""
        suite = ""
        found: dict[str, list[str]] = {}
        for line in self.out.splitlines():
            words = line.split()
            if len(words) == 1 and not line.startswith(" "):
                suite = words[0]
            elif len(words) > 1 and line.startswith("  "):
                if words[0] == "baseline":
                    found["labels"] = words
                elif suite:
                    found[f"{suite}.{words[0]}"] = words[1:]
            elif found and not words:
                break
        return found


@dataclass
class Project:
    """A project with the toy kernel, a queue, and a cache and a state of its own.

    :ivar root: its folder.
    """

    root: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What iommuq is run with."""
        return {
            **os.environ,
            "IOMMUQ_ROOT": str(self.root),
            "IOMMUQ_CACHE_DIR": str(self.root / "cache"),
            "IOMMUQ_STATE_DIR": str(self.root / "state"),
            "TOY_PYTHON": sys.executable,
            "TOY_TRACE": str(self.root / "trace"),
            # Tells the processes of this project from all others; see leftovers().
            "TOY_MARKER": str(self.root),
            **self.extra,
        }

    @property
    def maker(self) -> toy.QueueMaker:
        """A maker of further patches, on top of those that there are."""
        folder = self.root / "patches" / BASE
        names = (folder / "series").read_text().split()
        return toy.QueueMaker(folder=folder, work=self.root / "work", names=names)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that is in a file of the project."""
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))

    def start(self, *words: str, group: bool = False) -> subprocess.Popen[str]:
        """Start iommuq.

        :param group: as a shell does it, which makes a process group of every command.
        """
        return subprocess.Popen(
            [sys.executable, "-m", "iommuq", *words],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
        )

    def finish(self, process: subprocess.Popen[str]) -> Done:
        """Wait for what `start` started."""
        out, err = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def run(self, *words: str, **environment: str) -> Done:
        """Run iommuq to its end.

        :param environment: variables for this run only.
        """
        before = dict(self.extra)
        self.extra.update(environment)
        try:
            return self.finish(self.start(*words))
        finally:
            self.extra = before

    @property
    def trace(self) -> list[str]:
        """The calls of make and kunit.py so far."""
        path = self.root / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def forget_trace(self) -> None:
        """Start with an empty trace."""
        (self.root / "trace").unlink(missing_ok=True)

    @contextlib.contextmanager
    def stalled(self, stage: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run iommuq up to a stage that does not end, for as long as the block runs."""
        shim = self.root / "bin"
        shim.mkdir(exist_ok=True)
        (shim / "git").write_text(_GIT.format(git=shutil.which("git")))
        (shim / "git").chmod(0o755)
        mark = self.root / "stalled"
        mark.unlink(missing_ok=True)
        before = dict(self.extra)
        path = f"{shim}:{os.environ['PATH']}"
        self.extra.update(TOY_STALL=stage, TOY_STALLED=str(mark), PATH=path)
        process = self.start(*words, group=True)
        self.extra = before
        try:
            wait_for(lambda: mark.exists() or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
            process.wait()

    def leftovers(self) -> list[str]:
        """Return the command lines of all processes that were started for this project."""
        marker = f"TOY_MARKER={self.root}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    # A process that has ended may still be listed; it has no words any more.
                    if any(words):
                        found.append(b" ".join(words).decode(errors="replace"))
        return found


def wait_for(condition: object, seconds: float = PATIENCE) -> None:
    """Wait until *condition*, a function, is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[str], *, group: bool) -> None:
    """Press Ctrl-C, or send the signal to the process alone."""
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)


def make_project(root: Path) -> Project:
    """Make a project whose cache is empty, with a baseline patch and two more."""
    toy.write_tree(root / "linux", FILES)
    # Absolute, so that a project and its copies have the same base.
    source = f'provider = "directory"\npath = "{root / "linux"}"\n'
    base = f'name = "{BASE}"\ntitle = "Toy Linux"\n\n[source]\n{source}'
    toy.write_tree(root, {**PROJECT, f"patches/{BASE}/base.toml": base})
    toy.write_tree(root / "work", FILES)
    toy.git("init", "--quiet", "--template=", "--initial-branch=base", "work", cwd=root)
    toy.commit_all(root / "work", "Linux 6.12.117")
    maker = toy.QueueMaker(folder=root / "patches" / BASE, work=root / "work")
    steps = {
        "baseline/0001-toy-go-back.patch": ("return -22;", "return 0;"),
        "resv/0001-toy-refuse-to-block.patch": ("return 0;", "return -22;"),
        "resv/0002-toy-drop-the-check.patch": ("return 3;", "return 5;"),
    }
    for name, edit in steps.items():
        subject = "toy: " + name.partition("toy-")[2].removesuffix(".patch").replace("-", " ")
        maker.add(name, maker.mail(subject, {IOMMU_C: edit}))
    return Project(root)


def copy_project(template: Project, root: Path, *, warm: bool) -> Project:
    """Copy a project.

    :param warm: with the base, the images and the results that it has made.
    """
    skip = ("trees", "boots", "logs") if warm else ("cache", "state")
    shutil.copytree(template.root, root, ignore=shutil.ignore_patterns("trace", *skip))
    return Project(root)


@cache
def template(where: Path) -> Project:
    """Return a project that has run its queue once; tests copy it and leave it as it is.

    :param where: the directory of this run of pytest.
    """
    project = make_project(where / "toykernel")
    done = project.run("run", BASE)
    assert done.code == 0, done
    return project
