/* SPDX-License-Identifier: MIT */
/* Counted locks: see rwlocks.h. The linker's --wrap sends our calls here. */
#include "rwlocks.h"

#include <pthread.h>

int __real_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __real_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock);

static _Thread_local struct rwlocks taken;

struct rwlocks rwlocks_taken(void)
{
    return taken;
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    taken.reads++;
    return __real_pthread_rwlock_rdlock(lock);
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    taken.writes++;
    return __real_pthread_rwlock_wrlock(lock);
}
