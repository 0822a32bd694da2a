#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Stands before git in PATH while a stage that is git's is to stall.
case "$TOY_STALL $*" in
"fetch "*fast-import* | "checkout "*read-tree*-u*)
	touch "$TOY_STALLED"
	exec sleep 600 ;;
esac
exec "$TOY_GIT" "$@"
