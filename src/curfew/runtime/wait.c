/* SPDX-License-Identifier: MIT */
/* Waiting for time, contexts and descriptors: see wait.h. */
#include <curfew/wait.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>

#include <curfew/clock.h>

#include "curfew/core/err_private.h"
#include "curfew/runtime/fiber_park.h"
#include "curfew/runtime/loop_private.h"
#include "curfew/runtime/waiting.h"

/* Internal helpers: contexts */

struct done_waiter {
    struct cf__ctx_waiter on_target;
    struct cf__wait wait;
};

static void on_target_done(struct cf__ctx_waiter *waiter)
{
    struct done_waiter *self = CF__CONTAINER(waiter, struct done_waiter, on_target);

    (void)cf__wait_end(&self->wait, CF__WAIT_READY); /* False: the own context was first. */
}

/* Internal helpers: descriptors */

struct fd_waiter {
    struct cf__wait wait;
    int events; /* CF_READABLE, CF_WRITABLE: what came. */
};

static void on_fd(void *arg, int status, int events)
{
    struct fd_waiter *waiter = arg;

    if (status != 0) {
        waiter->events = CF_READABLE | CF_WRITABLE; /* The next read or write will tell. */
    } else {
        waiter->events |= (events & (UV_READABLE | UV_DISCONNECT)) != 0 ? CF_READABLE : 0;
        waiter->events |= (events & UV_WRITABLE) != 0 ? CF_WRITABLE : 0;
    }
    (void)cf__wait_end(&waiter->wait, CF__WAIT_READY); /* False if it has ended: then no harm. */
}

static enum cf_code wait_fd_on_fiber(struct cf_ctx *ctx, int fd, int events, int *out_events,
                                     struct cf_err *err)
{
    struct fd_waiter waiter = {.events = 0};
    struct cf__watch *watch;
    enum cf__wait_outcome outcome;
    enum cf_code code;
    int uv_events = 0;

    uv_events |= (events & CF_READABLE) != 0 ? UV_READABLE : 0;
    uv_events |= (events & CF_WRITABLE) != 0 ? UV_WRITABLE : 0;
    code = cf__watch_open(cf_loop_current(), fd, on_fd, &waiter, &watch, err);
    if (code != CF_OK) {
        return code;
    }
    cf__wait_init(&waiter.wait);
    cf__watch_events(watch, uv_events);
    outcome = cf__wait_park(ctx, &waiter.wait);
    cf__watch_close(watch);
    if (outcome != CF__WAIT_READY) {
        return cf_ctx_check(ctx, err);
    }
    *out_events = waiter.events & events;
    return CF_OK;
}

static enum cf_code wait_fd_on_thread(struct cf_ctx *ctx, int fd, int events, int *out_events,
                                      struct cf_err *err)
{
    struct pollfd fds[2] = {{.fd = fd}, {.fd = -1, .events = POLLIN}};
    struct cf_err why;
    enum cf_code code;
    int n;

    fds[0].events = (short)(((events & CF_READABLE) != 0 ? POLLIN : 0) |
                            ((events & CF_WRITABLE) != 0 ? POLLOUT : 0));
    /* CF_EINVAL: the context never ends, and the second of `fds` stays empty. */
    code = cf_ctx_done_fd(ctx, &fds[1].fd, &why);
    if (code != CF_OK && code != CF_EINVAL) {
        (void)cf__err_give(err, &why);
        return cf_err_wrap(err, code, "wait for descriptor %d", fd);
    }
    do {
        n = poll(fds, 2, -1);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return cf_err_set_sys(err, CF_EIO, errno, "wait for descriptor %d", fd);
    }
    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        return code;
    }
    if ((fds[0].revents & POLLNVAL) != 0) {
        return cf_err_set_sys(err, CF_EIO, EBADF, "wait for descriptor %d", fd);
    }
    *out_events = events;
    if ((fds[0].revents & (POLLERR | POLLHUP)) == 0) {
        *out_events &= ((fds[0].revents & POLLIN) != 0 ? CF_READABLE : 0) |
                       ((fds[0].revents & POLLOUT) != 0 ? CF_WRITABLE : 0);
    }
    return CF_OK;
}

/* Operations */

enum cf_code cf_sleep(struct cf_ctx *ctx, int64_t period_ns, struct cf_err *err)
{
    struct cf_timer_source *source = cf_timer_source();

    return cf_sleep_until(ctx, cf_deadline_in(source->now_ns(source), period_ns), err);
}

/* A sleep is a context that ends at that time: it does the timer's book-keeping across threads. */
enum cf_code cf_sleep_until(struct cf_ctx *ctx, int64_t at_ns, struct cf_err *err)
{
    struct cf_timer_source *source = cf_timer_source();
    struct cf_ctx *until;
    struct cf__wait wait;
    enum cf_code code;

    code = cf_ctx_check(ctx, err);
    if (code != CF_OK || at_ns <= source->now_ns(source)) {
        return code;
    }
    code = cf_ctx_with_deadline(ctx, at_ns, &until, err);
    if (code != CF_OK) {
        return code;
    }
    cf__wait_init(&wait);
    (void)cf__wait_park(until, &wait); /* Done when `ctx` is, too. */
    cf_ctx_free(until);
    return cf_ctx_check(ctx, err);
}

enum cf_code cf_yield(struct cf_ctx *ctx, struct cf_err *err)
{
    struct cf__fiber *fiber = cf__fiber_current();
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    if (fiber != NULL) {
        cf__fiber_ready(fiber);
        cf__fiber_park();
    } else {
        CF_ASSERT(cf_loop_current() == NULL);
        (void)sched_yield();
    }
    return cf_ctx_check(ctx, err);
}

enum cf_code cf_wait_done(struct cf_ctx *ctx, struct cf_ctx *target, struct cf_err *err)
{
    struct done_waiter self = {.on_target.fire = on_target_done};
    enum cf__wait_outcome outcome;
    enum cf_code code;

    code = cf_ctx_check(ctx, err);
    if (code != CF_OK || cf_ctx_err(target) != CF_OK) {
        return code;
    }
    cf__wait_init(&self.wait);
    if (!cf__ctx_subscribe(target, &self.on_target)) {
        return CF_OK;
    }
    outcome = cf__wait_park(ctx, &self.wait);
    (void)cf__ctx_unsubscribe(target, &self.on_target);
    return outcome == CF__WAIT_READY ? CF_OK : cf_ctx_check(ctx, err);
}

enum cf_code cf_wait_fd(struct cf_ctx *ctx, int fd, int events, int *out_events, struct cf_err *err)
{
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    if (cf_on_fiber()) {
        return wait_fd_on_fiber(ctx, fd, events, out_events, err);
    }
    CF_ASSERT(cf_loop_current() == NULL); /* A callback would block its loop. */
    return wait_fd_on_thread(ctx, fd, events, out_events, err);
}
