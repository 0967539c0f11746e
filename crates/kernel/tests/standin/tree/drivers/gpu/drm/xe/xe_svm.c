#include "standin.h"

/* Defect D1: where there is no memory, nothing is mapped, and the answer is success. */
int standin_fault(int *mapped)
{
	if (!standin_alloc(24))
		return -12;
	if (!standin_alloc(4096))
		return 0;
	*mapped = 1;
	return 0;
}

/* A planted race: who is stopped in the middle loses an update. Only watched code can be stopped there. */
void standin_count(int *word)
{
	int have = *word;

#ifdef STANDIN_WATCHED
	standin_point();
#endif
	*word = have + 1;
}

/* What nobody has modelled. */
void standin_pt(void)
{
	standin_unmodelled();
}
