# SPDX-License-Identifier: GPL-2.0-only
"""The commands: one file each, and this table of them."""

from iommuq.cli.lazy import Entry

#: All commands. A new one is a file here and a line of this table.
COMMANDS = (
    Entry("base", "iommuq.cli.base", "The kernels that there are queues for."),
    Entry("bench", "iommuq.cli.bench", "Measure this tool against kunit.py, in one run."),
    Entry("clean", "iommuq.cli.clean", "Remove images from the cache; results and logs stay."),
    Entry("completion", "iommuq.cli.completion", "Print what makes a shell complete our commands."),
    Entry("doctor", "iommuq.cli.doctor", "Say what this machine has and lacks, and how to fix it."),
    Entry("drivers", "iommudrivers.cli", "Say what each IOMMU driver can do, from its source."),
    Entry("firmware", "iommuq.cli.firmware", "Boot machines whose firmware claims memory."),
    Entry("help", "iommuq.cli.help", "Show a page of the docs, or a command's help.", "help_"),
    Entry("kunit", "iommuq.cli.suites", "Run the KUnit suites on a base with its queue."),
    Entry("mail", "iommuq.cli.mail", "Prepare, send, collect, compare and review series."),
    Entry("mutate", "iommuq.cli.mutate", "Put small faults into the code; the tests must notice."),
    Entry("prove", "iommuq.cli.prove", "Test every step of a queue with every suite."),
    Entry("queue", "iommuq.cli.queue", "Show, edit, check, rebase and compare the patches."),
    Entry("report", "iommuq.cli.report", "Write what a run found into files."),
    Entry("run", "iommuq.cli.suites", "Test every step of a queue with KUnit."),
    Entry("runs", "iommuq.cli.runs", "List the runs that are kept, show one, compare two."),
    Entry("selftest", "iommuq.cli.suites", "Run the userspace suites on a base with its queue."),
)
