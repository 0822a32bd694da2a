# SPDX-License-Identifier: GPL-2.0-only
"""What the toy queue promises, as its ``proof.toml`` has it."""

from __future__ import annotations

from toykernel import BASE

PROOF = f"patches/{BASE}/proof.toml"


GOOD = """
[[patch]]
name = "resv/0001"
fixes = ["kunit.toy_domain.block_refused"]

[[patch]]
name = "resv/0002"
reason = "a clean-up"
"""
