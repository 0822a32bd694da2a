// SPDX-License-Identifier: GPL-2.0-only
#include "maker.h"

int maker_map(struct maker *maker)
{
	int i, ret = 0;

	for (i = 0; i < 4; i++) {
		ret = clk_enable(maker->clocks[i]);
		if (ret)
			break;
	}
	return ret;
}
