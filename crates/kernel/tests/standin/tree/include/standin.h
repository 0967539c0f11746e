/* What the stand-in's files share. */
#ifndef STANDIN_H
#define STANDIN_H

#include "prepared.h"

#define STANDIN_PAGE 64
/* Pages that a migration skips: planted defect A. */
#define STANDIN_SKIPPED 1

struct standin_fence;

struct standin_node {
	struct standin_node *next;
	int *word;
};

void *standin_alloc(unsigned long bytes);
void standin_free(void *memory);
int standin_look(void);
void standin_warn(const char *file, int line);
void standin_unmodelled(void);
void standin_point(void);
void standin_count(int *word);

void standin_migrate(const unsigned char *from, unsigned char *to, int pages);
int standin_fault(int *mapped);
void standin_handle(void);
unsigned char *standin_writable(unsigned char *page, unsigned char *copy, int is_shared);
void standin_pt(void);
void standin_close(void);
int standin_follow(struct standin_node *node);
int standin_sync(struct standin_fence **fences);
struct standin_fence *dma_fence_array_create(int count, struct standin_fence **fences);

#endif
