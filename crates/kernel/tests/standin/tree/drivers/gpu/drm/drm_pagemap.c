#include "standin.h"

/* Defect A: the last page is not carried. */
void standin_migrate(const unsigned char *from, unsigned char *to, int pages)
{
	int i;

	for (i = 0; i < (pages - STANDIN_SKIPPED) * STANDIN_PAGE; i++)
		to[i] = from[i];
}
