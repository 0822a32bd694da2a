#!/usr/bin/env perl
# SPDX-License-Identifier: GPL-2.0
# One rule, and the form of --terse --show-types; the patch comes last, or is the input.
my $mail = @ARGV && $ARGV[-1] !~ /^-/ ? pop : '-';
my $bad = 0;
open(my $in, $mail eq '-' ? '<&STDIN' : "<$mail") or die "$mail: $!\n";
while (<$in>) {
	next unless /^\+.{101}/;
	print "$mail:$.: WARNING:LONG_LINE: line length exceeds 100 columns\n";
	$bad = 1;
}
exit $bad;
