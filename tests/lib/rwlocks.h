/* SPDX-License-Identifier: MIT */
/* Counts how often the calling thread takes a pthread_rwlock, for reading and for writing.
 *
 * Every test binary is linked so that pthread_rwlock_rdlock and pthread_rwlock_wrlock, where our
 * own code calls them, go through here: the library itself counts nothing. */
#ifndef RWLOCKS_H
#define RWLOCKS_H

struct rwlocks {
    unsigned long reads;
    unsigned long writes;
};

/* Since the thread began. */
struct rwlocks rwlocks_taken(void);

#endif
