#!/usr/bin/env perl
# SPDX-License-Identifier: GPL-2.0
# Everybody maintains everything; the patch comes last.
my $mail = pop;
-f $mail or die "$0: file '$mail' not found\n";
open(my $in, '<', 'MAINTAINERS') or die "$0: the tree has no MAINTAINERS\n";
while (<$in>) {
	print "$1\n" if /^M:.*<(.*)>/;
}
