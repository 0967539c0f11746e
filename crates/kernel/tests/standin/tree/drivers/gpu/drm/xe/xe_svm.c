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

/* A planted leak: of two, one is given back. */
void standin_close(void)
{
	standin_alloc(24);
	standin_free(standin_alloc(40));
}

/* A planted use of what was given back: the next one is looked up in it. */
int standin_follow(struct standin_node *node)
{
	standin_free(node);
	return *node->next->word;
}

/* Defect F: a page that a child has, too, is written where it is, and not its copy. */
unsigned char *standin_writable(unsigned char *page, unsigned char *copy, int is_shared)
{
	return page;
}

/* What the glue reads by the names of a header that lies beside this file. */
#include "xe_svm.h"

struct standin_map standin_map = { .vr = STANDIN_VR };
