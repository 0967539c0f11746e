// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What a VM took and must have given back when it is closed: memory of the slab (ranges, notifiers, fences, jobs), pages, addresses of
 * the device, buffers, references to the process.
 */
#include "k_books.h"

void k_books_open(struct k_books *books)
{
	int tile;

	books->heap = k_heap_mark();
	books->pages = k_pages_in_use();
	books->addresses = kface_iommu_mapped();
	for (tile = 0; tile < K_TILES; tile++)
		books->buffers[tile] = k_xe_bos_in_vram(tile);
	books->users = atomic_read(&k_mm()->mm_users);
	books->references = atomic_read(&k_mm()->mm_count);
}

static void compare(long before, long now, const char *what)
{
	if (now == before)
		return;
	kface_event("leak");
	kface_text("what", what);
	kface_signed("count", now - before);
	kface_event_end();
}

void k_books_close(const struct k_books *before, unsigned long behind)
{
	int tile;

	k_leaks(before->heap, behind);
	compare(before->pages, k_pages_in_use(), "pages of system memory");
	compare(before->addresses, kface_iommu_mapped(), "pages mapped for the device");
	for (tile = 0; tile < K_TILES; tile++)
		compare(before->buffers[tile], k_xe_bos_in_vram(tile), "buffers");
	compare(before->users, atomic_read(&k_mm()->mm_users), "users of the process' memory");
	compare(before->references, atomic_read(&k_mm()->mm_count), "references to the process' memory");
	kface_reached("what a VM took was counted when it was gone");
}
