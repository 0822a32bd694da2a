# SPDX-License-Identifier: GPL-2.0-only
"""Boot kernels on virtual machines and on user-mode Linux."""
