/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef KFACE_K_BOOKS_H
#define KFACE_K_BOOKS_H

#include "k_xe.h"

/* What is in use. */
struct k_books {
	unsigned long heap;
	unsigned long pages;
	unsigned long addresses;
	int buffers[K_TILES];
	int users;
	int references;
};

void k_books_open(struct k_books *books);
/* Tells what is in use and was not before; of the slab, what was asked for up to `behind`. */
void k_books_close(const struct k_books *before, unsigned long behind);

#endif
