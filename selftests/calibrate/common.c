// SPDX-License-Identifier: GPL-2.0-only
/*
 * What IOMMUs of both kinds are asked. A write that does not arrive counts only if the
 * same engine reaches the control page before and after it.
 */
#include "calibrate.h"

static void control(void)
{
	if (!writes(&plain, IOVA_CONTROL, TARGET_CONTROL))
		give_up("the control page is not reached any more");
}

static int reaches(uint64_t iova, int which)
{
	int reached;

	control();
	reached = writes(&plain, iova, which);
	control();
	return reached;
}

static const char *yes(int is)
{
	return is ? "yes" : "no";
}

static void translates(const struct iommu *iommu)
{
	int mapped, itself, nothing;

	iommu->map(IOVA_TEST, target(TARGET_TEST), READ_WRITE);
	mapped = reaches(IOVA_TEST, TARGET_TEST);
	itself = reaches(target(TARGET_OTHER), TARGET_OTHER);
	nothing = reaches(IOVA_NOTHING, TARGET_TEST);
	row("translates", yes(mapped && !itself && !nothing),
	    "a mapped page is %s, memory at its own address is %s",
	    mapped ? "reached" : "not reached", itself ? "reached" : "not reached");
}

/* What was asked before may have dropped the page: use it again, and clear its entry. */
static void cache_again(const struct iommu *iommu)
{
	iommu->map(IOVA_TEST, target(TARGET_TEST), READ_WRITE);
	if (!reaches(IOVA_TEST, TARGET_TEST))
		give_up("a page that was mapped again is not reached");
	iommu->map(IOVA_TEST, 0, 0);
}

/* A page that was used: what takes its translation away? It is mapped and unmapped here. */
static void stale(const struct iommu *iommu)
{
	int cached, other_domain, other_page, page;

	iommu->map(IOVA_TEST, 0, 0);
	cached = reaches(IOVA_TEST, TARGET_TEST);
	row("iotlb", cached ? "cached" : "not-cached",
	    "the write after the entry was cleared %s", cached ? "arrives" : "does not arrive");
	if (!cached) {
		row("flush-other-domain", "not-cached", "nothing is cached");
		row("flush-other-page", "not-cached", "nothing is cached");
		row("flush-page", "not-cached", "nothing is cached");
		return;
	}
	iommu->flush_domain(OTHER_DOMAIN);
	other_domain = reaches(IOVA_TEST, TARGET_TEST);
	row("flush-other-domain", other_domain ? "kept" : "dropped",
	    "the write after the invalidation of another domain %s",
	    other_domain ? "arrives" : "does not arrive");
	cache_again(iommu);
	iommu->flush_page(DOMAIN, IOVA_NOTHING);
	other_page = reaches(IOVA_TEST, TARGET_TEST);
	row("flush-other-page", other_page ? "kept" : "dropped",
	    "the write after the invalidation of another page %s",
	    other_page ? "arrives" : "does not arrive");
	cache_again(iommu);
	iommu->flush_page(DOMAIN, IOVA_TEST);
	page = !reaches(IOVA_TEST, TARGET_TEST);
	row("flush-page", yes(page), "the write after the invalidation of the page %s",
	    page ? "does not arrive" : "arrives");
}

static void not_present(const struct iommu *iommu)
{
	int reached;

	reached = reaches(IOVA_LATE, TARGET_TEST);
	if (reached)
		give_up("a page that was never mapped is reached");
	iommu->map(IOVA_LATE, target(TARGET_TEST), READ_WRITE);
	reached = reaches(IOVA_LATE, TARGET_TEST);
	row("not-present", reached ? "not-cached" : "cached",
	    "a page that is mapped after a write to it failed is %s",
	    reached ? "reached" : "not reached");
}

static void permissions(const struct iommu *iommu)
{
	int reached;

	iommu->map(IOVA_READ_ONLY, target(TARGET_TEST), READ_ONLY);
	reached = reaches(IOVA_READ_ONLY, TARGET_TEST);
	row("read-only", reached ? "ignored" : "kept", "the write %s",
	    reached ? "arrives" : "does not arrive");
}

static void large(const struct iommu *iommu)
{
	uint64_t iova = IOVA_LARGE + target(TARGET_TEST) - pool_address;
	int reached;

	iommu->map_large(IOVA_LARGE, pool_address);
	reached = reaches(iova, TARGET_TEST);
	row("large", yes(reached), "2 MiB");
}

void ask_common(const struct iommu *iommu)
{
	iommu->map(IOVA_CONTROL, target(TARGET_CONTROL), READ_WRITE);
	translates(iommu);
	stale(iommu);
	not_present(iommu);
	permissions(iommu);
	large(iommu);
}

/* Which requester ID lets the device behind the bridge reach memory? */
void ask_alias(const struct iommu *iommu)
{
	const struct {
		const char *word;
		unsigned int id;
	} places[] = {
		{ "own", bridged.id },
		{ "secondary", bridged.id & 0xff00 },
		{ "bridge", bridge_id },
		/* As if the bus behind the bridge had no number yet */
		{ "unnumbered", 0 },
	};
	unsigned int i, id = 0;
	const char *word = "none";

	if (!bridged.name)
		return;
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		iommu->only(places[i].id);
		if (!writes(&bridged, IOVA_CONTROL, TARGET_CONTROL))
			continue;
		word = places[i].word;
		id = places[i].id;
		break;
	}
	if (i == sizeof(places) / sizeof(places[0]))
		row("alias", word, "of 0x%04x, 0x%04x, 0x%04x and 0x%04x", places[0].id,
		    places[1].id, places[2].id, places[3].id);
	else
		row("alias", word, "0x%04x, for the device 0x%04x behind the bridge 0x%04x", id,
		    bridged.id, bridge_id);
	iommu->only(plain.id);
}
