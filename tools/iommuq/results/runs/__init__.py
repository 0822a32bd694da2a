# SPDX-License-Identifier: GPL-2.0-only
"""What one call of a command did, kept and compared: steps, lanes, verdicts, times."""
