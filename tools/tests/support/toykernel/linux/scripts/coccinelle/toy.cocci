// SPDX-License-Identifier: GPL-2.0-only
// Nobody calls this one.
virtual report

@r@
position p;
@@

toy_leak@p(...)

@script:python depends on report@
p << r.p;
@@

coccilib.report.print_report(p[0], "WARNING: toy_leak leaks")
