# SPDX-License-Identifier: GPL-2.0-only
"""The commands: one file each, and this table of them."""

from iommuq.cli.lazy import Entry

#: All commands. A new one is a file here and a line of this table.
COMMANDS = (
    Entry("base", "The kernels that there are queues for."),
    Entry("bench", "Measure this tool against kunit.py, in one run."),
    Entry("clean", "Remove images from the cache; results and logs stay."),
    Entry("completion", "Print what makes a shell complete our commands."),
    Entry("doctor", "Say what this machine has and lacks, and how to fix it."),
    Entry("drivers", "Say what each IOMMU driver can do, from its source.", "iommudrivers.cli"),
    Entry("firmware", "Boot machines whose firmware claims memory."),
    Entry("help", "Show a page of the docs, or a command's help.", attribute="help_"),
    Entry("kunit", "Run the KUnit suites on a base with its queue."),
    Entry("mail", "Prepare, send, collect, compare and review series."),
    Entry("mutate", "Put small faults into the code; the tests must notice."),
    Entry("prove", "Test every step of a queue with every suite."),
    Entry("queue", "Show, edit, check, rebase and compare the patches."),
    Entry("report", "Write what a run found into files."),
    Entry("run", "Test every step of a queue with KUnit."),
    Entry("runs", "List the runs that are kept, show one, compare two."),
    Entry("selftest", "Run the userspace suites on a base with its queue."),
)
