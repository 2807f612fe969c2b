/* SPDX-License-Identifier: MIT */
/* Threads and fibers to call from: see places.h. */
#include "places.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <curfew/wait.h>

/* Looks in a row at which a thread must sleep: it may nod off for a lock on its way. */
#define LOOKS 5

static _Atomic(const char *) failed_condition; /* The first EXPECT() that did not hold. */
static const char *failed_file;                /* With failed_condition. */
static int failed_line;

static void visit_run(void *arg)
{
    struct visit *visit = arg;

    atomic_store(&visit->tid, (int)syscall(SYS_gettid));
    visit->fn(visit->arg);
    atomic_store(&visit->ended, true);
}

static void *visit_thread(void *arg)
{
    visit_run(arg);
    return NULL;
}

void visit_start(struct visit *visit, int place, place_fn fn, void *arg)
{
    struct cf_err err;

    *visit = (struct visit){.fn = fn, .arg = arg};
    if (place == PLACE_THREAD) {
        ck_assert_int_eq(pthread_create(&visit->thread, NULL, visit_thread, visit), 0);
        return;
    }
    ck_assert_int_eq(cf_loop_new(NULL, &visit->loop, &err), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(visit->loop, visit_run, visit, &err), CF_OK);
}

/* The letter after the name in /proc/.../stat, or 0 if the thread has ended. */
static char thread_state(int tid)
{
    char path[64];
    char text[256];
    const char *after_name;
    ssize_t size;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    size = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    after_name = strrchr(text, ')');
    return after_name != NULL && after_name[1] == ' ' ? after_name[2] : 0;
}

bool place_wait_asleep(int tid)
{
    int64_t give_up_ns = cf_now_ns() + 20 * CF_SECOND;

    for (int looks = 0; looks < LOOKS;) {
        char state = thread_state(tid);

        if (state == 0) {
            return false;
        }
        looks = state == 'S' ? looks + 1 : 0;
        ck_assert_msg(cf_now_ns() < give_up_ns, "thread %d never sleeps", tid);
        (void)nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return true;
}

void visit_wait_parked(struct visit *visit)
{
    EVENTUALLY(atomic_load(&visit->tid) != 0);
    (void)place_wait_asleep(atomic_load(&visit->tid));
    ck_assert_msg(!atomic_load(&visit->ended), "it returned instead of waiting");
}

void visit_join(struct visit *visit)
{
    const char *condition;

    if (visit->loop != NULL) {
        cf_loop_free(visit->loop); /* Waits for its fibers. */
        visit->loop = NULL;
    } else {
        ck_assert_int_eq(pthread_join(visit->thread, NULL), 0);
    }
    condition = atomic_exchange(&failed_condition, NULL);
    ck_assert_msg(condition == NULL, "%s:%d: not so: %s", failed_file, failed_line, condition);
}

void place_expect_failed(const char *condition, const char *file, int line)
{
    static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

    (void)pthread_mutex_lock(&mu);
    if (atomic_load(&failed_condition) == NULL) {
        failed_file = file;
        failed_line = line;
        atomic_store(&failed_condition, condition);
    }
    (void)pthread_mutex_unlock(&mu);
}

void place_run(int place, place_fn fn, void *arg)
{
    struct visit visit;

    visit_start(&visit, place, fn, arg);
    visit_join(&visit);
}

void place_wait(struct cf_ctx *gate)
{
    if (cf_wait_done(cf_ctx_background(), gate, NULL) != CF_OK) {
        abort(); /* The background never ends. */
    }
}

void place_yield(void)
{
    if (cf_yield(cf_ctx_background(), NULL) != CF_OK) {
        abort(); /* The background never ends. */
    }
}
