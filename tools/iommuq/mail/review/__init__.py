# SPDX-License-Identifier: GPL-2.0-only
"""The reader's side: try what somebody posted, in a sandbox, and draft a reply."""
