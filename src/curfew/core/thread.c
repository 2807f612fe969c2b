/* SPDX-License-Identifier: MIT */
/* Starting threads: see thread.h. */
#include "curfew/core/thread.h"

#include <stddef.h>

void cf__thread_signals(sigset_t *out)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};

    (void)sigfillset(out);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        (void)sigdelset(out, faults[i]);
    }
}

int cf__thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *out)
{
    pthread_t thread;
    sigset_t blocked;
    sigset_t before;
    int sys;

    cf__thread_signals(&blocked);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before); /* A thread begins with its maker's. */
    sys = pthread_create(&thread, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (sys != 0) {
        return sys;
    }
    (void)pthread_setname_np(thread, name);
    if (out != NULL) {
        *out = thread;
    } else {
        (void)pthread_detach(thread);
    }
    return 0;
}
