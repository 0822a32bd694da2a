# SPDX-License-Identifier: GPL-2.0-only
"""The machines that kernels are booted on."""
