/* SPDX-License-Identifier: MIT */
/* Lasting watches of descriptors, on libuv's poll handles: see loop_private.h.
 *
 * libuv frees a handle in a later turn than it is closed in, so the watch frees itself there. */
#include <stdlib.h>

#include <curfew/err.h>

#include "curfew/runtime/loop_private.h"

struct cf__watch {
    uv_poll_t poll;
    int events; /* What it looks for; 0: nothing. */
    cf__watch_cb cb;
    void *arg;
};

/* Internal helpers */

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct cf__watch *watch = CF__CONTAINER(poll, struct cf__watch, poll);

    if (status != 0) {
        watch->events = 0; /* libuv has stopped it. */
    }
    watch->cb(watch->arg, status, events);
}

static void on_closed(uv_handle_t *handle)
{
    free(CF__CONTAINER(handle, struct cf__watch, poll));
}

/* Life cycle */

enum cf_code cf__watch_open(struct cf_loop *loop, int fd, cf__watch_cb cb, void *arg,
                            struct cf__watch **out, struct cf_err *err)
{
    struct cf__watch *watch = calloc(1, sizeof(*watch));
    int sys;

    if (watch == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to watch a descriptor");
    }
    sys = -uv_poll_init(cf__loop_uv(loop), &watch->poll, fd);
    if (sys != 0) {
        free(watch);
        return cf_err_set_sys(err, CF_EIO, sys, "watch descriptor %d", fd);
    }
    watch->cb = cb;
    watch->arg = arg;
    *out = watch;
    return CF_OK;
}

void cf__watch_close(struct cf__watch *own_watch)
{
    if (own_watch != NULL) {
        uv_close((uv_handle_t *)&own_watch->poll, on_closed);
    }
}

/* Operations */

/* libuv takes a handle that is started anew out of its epoll and puts it back in: two system calls,
 * which each statement of a session would pay. */
void cf__watch_events(struct cf__watch *watch, int events)
{
    int sys = 0;

    if (events == watch->events) {
        return;
    }
    if (events == 0) {
        (void)uv_poll_stop(&watch->poll);
    } else {
        sys = uv_poll_start(&watch->poll, events, on_event);
    }
    CF_ASSERT(sys == 0); /* It fails if another watch of the loop has the descriptor. */
    watch->events = events;
}
