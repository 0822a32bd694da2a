#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# -m -O DIRECTORY CONFIG FRAGMENT
exec cat "$5" >> "$4"
