#include "standin.h"

/* Defect C: two are counted, one is filled in. */
int standin_sync(struct standin_fence **fences)
{
	fences[0] = (void *)fences;
	standin_warn(__FILE__, __LINE__);
	return dma_fence_array_create(2, fences) != 0;
}
