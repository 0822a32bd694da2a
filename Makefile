# SPDX-License-Identifier: GPL-2.0-only
# Thin targets over tools/bootstrap, which does the same where make is missing.
# Arguments go in ARGS: make test ARGS='-k series'.  Where the exit code matters
# call the script: make turns any failure into a 2 of its own.

.PHONY: help run check test check-all fuzz bench doctor docs clean

help:
	@echo 'make run        the verdict on the queue, patch by patch'
	@echo 'make check      ruff, mypy, import-linter and most tests that need no kernel'
	@echo 'make test       the same, attacks and bombs, and one real lane of each suite'
	@echo 'make check-all  every base, guest and scenario, and the fuzzer'
	@echo 'make fuzz       new inputs for the parsers of untrusted bytes'
	@echo 'make bench      how fast it is, as ratios'
	@echo 'make doctor     what this machine has and lacks'
	@echo 'make docs       docs/ as a site, in build/site, and the manual page'
	@echo 'make clean      remove .venv and the caches of the Python tools;'
	@echo '                sources, builds and results are elsewhere: see doctor'

run:
	@tools/bootstrap run $(ARGS)

check:
	@tools/bootstrap check $(ARGS)

test:
	@tools/bootstrap test $(ARGS)

check-all:
	@tools/bootstrap check-all $(ARGS)

fuzz:
	@tools/bootstrap fuzz $(ARGS)

bench:
	@tools/bootstrap bench $(ARGS)

doctor:
	@tools/bootstrap doctor $(ARGS)

docs:
	@tools/bootstrap docs $(ARGS)

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis tools/*.egg-info
	find tools -name __pycache__ -prune -exec rm -rf {} +
