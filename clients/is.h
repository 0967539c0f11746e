/*
 * Comparing: a line for what is not as it should be, and how many there were.
 */
#ifndef CLIENTS_IS_H
#define CLIENTS_IS_H

#include <errno.h>
#include <stdio.h>

static int failures;

#define IS(got, want)                                                                                        \
    do {                                                                                                     \
        long long got_ = (long long)(got), want_ = (long long)(want);                                        \
        if (got_ != want_) {                                                                                 \
            printf("line %d: %s is %lld, not %lld\n", __LINE__, #got, got_, want_);                          \
            failures++;                                                                                      \
        }                                                                                                    \
    } while (0)

static inline void expect(int right, const char *what) {
    if (!right) {
        printf("WRONG: %s (errno %d)\n", what, errno);
        failures++;
    }
}

/* The last line, and the exit status that goes with it. */
static inline int verdict(const char *name) {
    if (failures)
        printf("%s BAD failures=%d\n", name, failures);
    else
        printf("%s ok\n", name);
    return failures ? 1 : 0;
}

#endif
