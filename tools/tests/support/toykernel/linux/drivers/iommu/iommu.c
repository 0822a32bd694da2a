// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <kunit/test.h>

/* What blocking a device with DIRECT regions returns. */
int toy_block(void)
{
	return -22;
}

/* What each of the next two returns is of no importance to the one before. */
int toy_plain(void)
{
	return 2;
}




int toy_driver(void)
{
	return 3;
}
