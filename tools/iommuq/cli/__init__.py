# SPDX-License-Identifier: GPL-2.0-only
"""The command line: parse arguments, call one function, print."""
