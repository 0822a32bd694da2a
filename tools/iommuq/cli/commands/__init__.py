# SPDX-License-Identifier: GPL-2.0-only
"""The commands, one file each, and their table."""

from iommuq.cli.lazy import Entry

#: All commands.  A new one needs a file here and a line in this table.
COMMANDS = (
    Entry("base", "List, fetch and add kernels with a patch queue."),
    Entry("bench", "Measure this tool against kunit.py, in one run.", other=True),
    Entry("clean", "Remove images from the cache; results and logs are kept."),
    Entry("completion", "Print the completion script for a shell."),
    Entry("doctor", "Check this machine, and show how to fix problems."),
    Entry("drivers", "Show what each IOMMU driver supports, from its source.", other=True),
    Entry("firmware", "Test machines whose firmware reserves memory for devices."),
    Entry("help", "Show a page of the docs, or the help of a command.", attribute="help_"),
    Entry("kunit", "Run the KUnit suites on a base with its queue."),
    Entry("mail", "Prepare, send, collect, compare and review series."),
    Entry("explore", "Try random sequences on the core, and hold rules against them."),
    Entry("mutate", "Put small faults into the code; the tests must notice."),
    Entry("prove", "Test every step of a queue with every suite."),
    Entry("queue", "Show, edit, check, rebase and compare the patches."),
    Entry("report", "Write the results of a run into files."),
    Entry("run", "Test every step of a queue with KUnit."),
    Entry("runs", "List the stored runs, show one, compare two."),
    Entry("selftest", "Run the userspace suites on a base with its queue."),
)
