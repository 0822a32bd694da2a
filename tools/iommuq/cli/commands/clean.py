# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq clean``."""

from __future__ import annotations

import click


@click.command()
@click.option("--trees", is_flag=True, help="Also work trees and build directories.")
@click.option("--all", "everything", is_flag=True, help="Also the above, and kernel sources.")
@click.option("--old", is_flag=True, help="Only what exceeds IOMMUQ_CACHE_GIB.")
def clean(trees: bool, everything: bool, old: bool) -> None:
    """Remove images from the cache; results and logs are kept."""
    from iommuq.system import cache

    freed = cache.shrink() if old else cache.clean(trees=trees or everything, bases=everything)
    print(f"{freed / cache.GIB:.1f} GiB freed")
