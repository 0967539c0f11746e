// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Device addresses of system pages: those that the IOMMU of the device gives out, so a stale one is found out. */
#include <linux/dma-mapping.h>
#include <linux/dma-direction.h>
#include "k.h"

static dma_addr_t map(phys_addr_t phys, size_t bytes, enum dma_data_direction direction)
{
	unsigned long pages = PAGE_ALIGN(offset_in_page(phys) + bytes) >> PAGE_SHIFT;

	return kface_iommu_map(PHYS_PFN(phys), pages, direction != DMA_TO_DEVICE) + offset_in_page(phys);
}

static void unmap(dma_addr_t addr, size_t bytes)
{
	kface_iommu_unmap(addr & PAGE_MASK, PAGE_ALIGN(offset_in_page(addr) + bytes) >> PAGE_SHIFT);
}

dma_addr_t dma_map_page_attrs(struct device *dev, struct page *page, size_t offset, size_t bytes,
			      enum dma_data_direction direction, unsigned long attrs)
{
	return map(page_to_phys(page) + offset, bytes, direction);
}

void dma_unmap_page_attrs(struct device *dev, dma_addr_t addr, size_t bytes, enum dma_data_direction direction,
			  unsigned long attrs)
{
	unmap(addr, bytes);
}

dma_addr_t dma_map_phys(struct device *dev, phys_addr_t phys, size_t bytes, enum dma_data_direction direction,
			unsigned long attrs)
{
	return map(phys, bytes, direction);
}

void dma_unmap_phys(struct device *dev, dma_addr_t addr, size_t bytes, enum dma_data_direction direction,
		    unsigned long attrs)
{
	unmap(addr, bytes);
}

bool dma_need_unmap(struct device *dev)
{
	return true;
}
