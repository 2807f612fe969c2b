/* SPDX-License-Identifier: MIT */
/* Contexts: see ctx.h for the contract, Go's context package for the model.
 *
 * A context that can end by itself is a *scope*: it has a lock, children, waiters and perhaps a
 * timer. Contexts of value and without_cancel have none of that and point to the scope that ends
 * them, or to none. So err() is one load wherever it is asked, and a long chain of values costs
 * nothing but the look-up.
 *
 * Cancelling walks the tree with a work list and not by recursion, because it may run on a fiber's
 * small stack. Each scope is marked under its own lock, its waiters are fired there, and its
 * children are moved to the list with a reference each. No two context locks are ever held at once.
 *
 * References: a child holds its parent; whoever made a context holds it until cf_ctx_free(); an
 * armed timer and a scope on a work list hold theirs. Parents do not hold children: a scope is
 * cancelled, and so unlinked under its parent's lock, before its maker's reference goes, and no
 * other reference outlives that unlinking into the list.
 *
 * A cause is stored once, in the scope where it arose; descendants point there, which is safe
 * because they hold their ancestors.
 *
 * Lock order: a scope's mu, then what a waiter's fire() takes
 * (loop inbox, parker, timer thread). */
#include <curfew/ctx.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "curfew/core/ctx_private.h"
#include "curfew/core/ctx_waiter.h"
#include "curfew/core/timer_thread.h"

enum kind {
    KIND_BACKGROUND,
    KIND_SCOPE,
    KIND_VALUE,
    KIND_WITHOUT_CANCEL,
};

struct scope;

/* Constant after new, but for the count. */
struct cf_ctx {
    _Atomic unsigned refs;
    enum kind kind;
    struct cf_ctx *parent; /* A reference; NULL for the background. */
    struct scope *scope;   /* The nearest of this and its ancestors that can end, or NULL. */
    struct scope *timed;   /* The scope whose timer is the deadline, or NULL: no deadline. */
    const void *key;       /* Of KIND_VALUE, and of a scope that carries one; else NULL. */
    void *value;
};

struct scope {
    struct cf_ctx ctx;

    int64_t deadline_ns;            /* If ctx.timed is this scope. Constant after new. */
    struct cf_timer_source *source; /* The clock, and where the timer is armed. Constant. */
    struct cf_err *why_late; /* The cause if the deadline ends it, or NULL. Owned, constant. */
    struct cf_timer timer;   /* Of the source. Armed: holds a reference. */

    struct scope *next_to_cancel; /* On a work list; used once, by who unlinked it. */
    struct cf__list sibling;      /* In the children of the parent's scope; guarded by its mu. */

    pthread_mutex_t mu; /* Guards everything below. */
    _Atomic int code;   /* enum cf_code: CF_OK until done. Written with mu held, read without. */
    struct cf__list children;
    struct cf__list waiters;
    _Atomic int done_fd;     /* -1 until asked for. Written with mu held, read without. */
    struct scope *caused_by; /* Whose cause it is, once done. */
    enum cf_reason reason;   /* The cause, if caused_by is this scope; constant once done. */
    struct cf_err why;       /* Valid if has_why. */
    bool has_why;
    const char *file;
    int line;
    int64_t at_ns;
    int64_t budget_ns;
};

struct cf_ctx_after {
    struct cf__ctx_waiter waiter;
    struct cf_deferred deferred;
    _Atomic unsigned refs; /* The handle's, and that of the call to come. */
    struct cf_ctx *ctx;    /* A reference. */
    struct cf_timer_source *source;
    cf_ctx_after_fn fn;
    void *arg;
};

/* What ends a scope: the arguments of cancel, kept together. */
struct ending {
    enum cf_code code;
    enum cf_reason reason;
    const struct cf_err *why;
    const char *file;
    int line;
};

/* Internal helpers */

static struct scope *scope_of_timer(struct cf_timer *timer)
{
    return CF__CONTAINER(timer, struct scope, timer);
}

static struct cf_ctx *ref(struct cf_ctx *ctx)
{
    if (ctx->kind != KIND_BACKGROUND) {
        (void)atomic_fetch_add(&ctx->refs, 1);
    }
    return ctx;
}

static void destroy(struct cf_ctx *ctx)
{
    if (ctx->kind == KIND_SCOPE) {
        struct scope *scope = ctx->scope;

        CF_ASSERT(cf__list_empty(&scope->waiters));
        if (scope->done_fd >= 0) {
            (void)close(scope->done_fd);
        }
        (void)pthread_mutex_destroy(&scope->mu);
        free(scope->why_late);
        free(scope);
    } else {
        free(ctx);
    }
}

/* Give up a reference; a chain of ancestors that nobody else holds goes with it,
 * without recursion. */
static void unref(struct cf_ctx *ctx)
{
    while (ctx->kind != KIND_BACKGROUND && atomic_fetch_sub(&ctx->refs, 1) == 1) {
        struct cf_ctx *parent = ctx->parent;

        destroy(ctx);
        ctx = parent;
    }
}

/* Take a scope out of its parent's children. Does nothing if the parent took it out. */
static void leave_parent(struct scope *scope)
{
    struct scope *parent = scope->ctx.parent->scope;

    if (parent != NULL) {
        (void)pthread_mutex_lock(&parent->mu);
        cf__list_unlink(&scope->sibling);
        (void)pthread_mutex_unlock(&parent->mu);
    }
}

static void record(struct scope *scope, struct scope *cause, const struct ending *ending)
{
    scope->caused_by = cause;
    if (cause == scope) {
        scope->reason = ending->reason;
        scope->has_why = ending->why != NULL;
        if (scope->has_why) {
            scope->why = *ending->why;
        }
        scope->file = ending->file;
        scope->line = ending->line;
        scope->at_ns = scope->source->now_ns(scope->source);
        scope->budget_ns = cf_ctx_remaining_ns(&scope->ctx);
    }
    atomic_store(&scope->code, ending->code);
}

/* Mark one scope done, tell its waiters, and put its children before `work`. Returns the new list.
 * A scope that is done already is left as it is: its canceler does the rest. */
static struct scope *finish(struct scope *scope, struct scope *cause, const struct ending *ending,
                            struct scope *work)
{
    struct cf__list *node;
    bool prevented;

    (void)pthread_mutex_lock(&scope->mu);
    if (atomic_load(&scope->code) != CF_OK) {
        (void)pthread_mutex_unlock(&scope->mu);
        return work;
    }
    /* Before anybody learns of it, who may be the last on the loop whose timers these are. */
    prevented = scope->ctx.timed == scope && scope->source->disarm(scope->source, &scope->timer);
    record(scope, cause, ending);
    if (scope->done_fd >= 0) {
        (void)eventfd_write(scope->done_fd, 1); /* Cannot be full: written once. */
    }
    while ((node = cf__list_pop(&scope->waiters)) != NULL) {
        struct cf__ctx_waiter *waiter = CF__CONTAINER(node, struct cf__ctx_waiter, node);

        waiter->fire(waiter);
    }
    while ((node = cf__list_pop(&scope->children)) != NULL) {
        struct scope *child = CF__CONTAINER(node, struct scope, sibling);

        (void)ref(&child->ctx);
        child->next_to_cancel = work;
        work = child;
    }
    (void)pthread_mutex_unlock(&scope->mu);

    if (prevented) {
        unref(&scope->ctx); /* The timer's. The caller holds another. */
    }
    return work;
}

/* End `scope` and everything below it, all with the cause that is in `cause`: `scope` or an
 * ancestor, which they hold. The caller holds a reference. */
static void cancel_for(struct scope *scope, struct scope *cause, const struct ending *ending)
{
    struct scope *work = finish(scope, cause, ending, NULL);

    leave_parent(scope);
    while (work != NULL) {
        struct scope *child = work;

        work = finish(child, cause, ending, child->next_to_cancel);
        unref(&child->ctx);
    }
}

static void cancel(struct scope *scope, const struct ending *ending)
{
    cancel_for(scope, scope, ending);
}

static void cancel_late(struct scope *scope)
{
    struct ending ending = {
        .code = CF_EDEADLINE, .reason = CF_REASON_DEADLINE, .why = scope->why_late};

    cancel(scope, &ending);
}

static void on_timer(struct cf_timer *timer)
{
    struct scope *scope = scope_of_timer(timer);

    cancel_late(scope);
    unref(&scope->ctx); /* The timer's. */
}

/* Link a new scope below its parent's; if that is done, the new one is done from birth. */
static void join_parent(struct scope *scope)
{
    struct scope *parent = scope->ctx.parent->scope;
    int code = CF_OK;

    if (parent == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&parent->mu);
    code = atomic_load(&parent->code);
    if (code == CF_OK) {
        cf__list_push(&parent->children, &scope->sibling);
    }
    (void)pthread_mutex_unlock(&parent->mu);
    if (code != CF_OK) {
        struct ending ending = {.code = (enum cf_code)code};

        /* Constant, now that the parent is done. */
        (void)finish(scope, parent->caused_by, &ending, NULL);
    }
}

static void init(struct cf_ctx *ctx, enum kind kind, struct cf_ctx *parent)
{
    CF_ASSERT(parent != NULL);
    atomic_init(&ctx->refs, 1);
    ctx->kind = kind;
    ctx->parent = ref(parent);
}

static struct scope *scope_new(struct cf_ctx *parent)
{
    struct scope *scope = malloc(sizeof(*scope)); /* Not zeroed: `why` is large and seldom used. */

    if (scope == NULL) {
        return NULL;
    }
    init(&scope->ctx, KIND_SCOPE, parent);
    scope->ctx.scope = scope;
    scope->ctx.timed = parent->timed;
    scope->ctx.key = NULL;
    scope->ctx.value = NULL;
    scope->deadline_ns = CF_NEVER;
    scope->source = parent->timed != NULL ? parent->timed->source : cf_timer_source();
    scope->why_late = NULL;
    scope->timer = (struct cf_timer){.fire = on_timer};
    scope->next_to_cancel = NULL;
    cf__list_init(&scope->sibling);
    (void)pthread_mutex_init(&scope->mu, NULL); /* Cannot fail with default attributes. */
    atomic_init(&scope->code, CF_OK);
    cf__list_init(&scope->children);
    cf__list_init(&scope->waiters);
    atomic_init(&scope->done_fd, -1);
    scope->caused_by = NULL;
    scope->has_why = false;
    return scope;
}

static enum cf_code no_memory(struct cf_err *err)
{
    return cf_err_set(err, CF_ENOMEM, "no memory for a context");
}

/* Give a scope that is not linked yet its deadline: a timer, or its end if that has passed. */
static enum cf_code set_deadline(struct scope *scope, int64_t deadline_ns, const struct cf_err *why,
                                 struct cf_err *err)
{
    scope->source = cf_timer_source();
    scope->deadline_ns = deadline_ns;
    scope->ctx.timed = scope;
    if (why != NULL) {
        scope->why_late = malloc(sizeof(*why));
        if (scope->why_late == NULL) {
            return no_memory(err);
        }
        *scope->why_late = *why;
    }
    return CF_OK;
}

/* Arm the timer of a scope that is linked, unless it is done. */
static enum cf_code start_deadline(struct scope *scope, struct cf_err *err)
{
    bool armed = true;

    if (scope->source->now_ns(scope->source) >= scope->deadline_ns) {
        cancel_late(scope);
        return CF_OK;
    }

    /* Under mu, so that a cancel from above either comes first, and is seen, or finds it armed. */
    (void)pthread_mutex_lock(&scope->mu);
    if (atomic_load(&scope->code) == CF_OK) {
        (void)ref(&scope->ctx);
        armed = scope->source->arm(scope->source, &scope->timer, scope->deadline_ns);
    }
    (void)pthread_mutex_unlock(&scope->mu);
    if (!armed) {
        unref(&scope->ctx);
        return no_memory(err);
    }
    return CF_OK;
}

/* Life cycle */

struct cf_ctx *cf_ctx_background(void)
{
    static struct cf_ctx background = {.kind = KIND_BACKGROUND};

    return &background;
}

enum cf_code cf_ctx_with_cancel(struct cf_ctx *parent, struct cf_ctx **out, struct cf_err *err)
{
    struct scope *scope = scope_new(parent);

    if (scope == NULL) {
        return no_memory(err);
    }
    join_parent(scope);
    *out = &scope->ctx;
    return CF_OK;
}

enum cf_code cf_ctx_with_deadline(struct cf_ctx *parent, int64_t deadline_ns, struct cf_ctx **out,
                                  struct cf_err *err)
{
    return cf_ctx_with_deadline_cause(parent, deadline_ns, NULL, out, err);
}

enum cf_code cf_ctx_with_timeout(struct cf_ctx *parent, int64_t timeout_ns, struct cf_ctx **out,
                                 struct cf_err *err)
{
    struct cf_timer_source *source = cf_timer_source();

    return cf_ctx_with_deadline(parent, cf_deadline_in(source->now_ns(source), timeout_ns), out,
                                err);
}

enum cf_code cf_ctx_with_deadline_cause(struct cf_ctx *parent, int64_t deadline_ns,
                                        const struct cf_err *why, struct cf_ctx **out,
                                        struct cf_err *err)
{
    struct scope *scope;
    enum cf_code code;

    CF_ASSERT(parent != NULL);
    if (cf_ctx_deadline_ns(parent) <= deadline_ns) {
        return cf_ctx_with_cancel(parent, out, err); /* The parent's timer is the earlier one. */
    }
    scope = scope_new(parent);
    if (scope == NULL) {
        return no_memory(err);
    }
    code = set_deadline(scope, deadline_ns, why, err);
    if (code != CF_OK) {
        unref(&scope->ctx);
        return code;
    }
    join_parent(scope);
    code = start_deadline(scope, err);
    if (code != CF_OK) {
        cf_ctx_free(&scope->ctx);
        return code;
    }
    *out = &scope->ctx;
    return CF_OK;
}

enum cf_code cf_ctx_with_value(struct cf_ctx *parent, const void *key, void *value,
                               struct cf_ctx **out, struct cf_err *err)
{
    struct cf_ctx *ctx;

    CF_ASSERT(key != NULL);
    ctx = calloc(1, sizeof(*ctx));
    if (ctx == NULL) {
        return no_memory(err);
    }
    init(ctx, KIND_VALUE, parent);
    ctx->scope = parent->scope;
    ctx->timed = parent->timed;
    ctx->key = key;
    ctx->value = value;
    *out = ctx;
    return CF_OK;
}

void cf__ctx_carry(struct cf_ctx *ctx, const void *key, void *value)
{
    CF_ASSERT(ctx->kind == KIND_SCOPE);
    CF_ASSERT(ctx->key == NULL);
    ctx->key = key;
    ctx->value = value;
}

enum cf_code cf_ctx_without_cancel(struct cf_ctx *parent, struct cf_ctx **out, struct cf_err *err)
{
    struct cf_ctx *ctx = calloc(1, sizeof(*ctx));

    if (ctx == NULL) {
        return no_memory(err);
    }
    init(ctx, KIND_WITHOUT_CANCEL, parent);
    *out = ctx;
    return CF_OK;
}

void cf_ctx_free(struct cf_ctx *ctx)
{
    struct ending ending = {.code = CF_ECANCELED, .reason = CF_REASON_CANCELED};

    if (ctx == NULL) {
        return;
    }
    if (ctx->kind == KIND_SCOPE) {
        cancel(ctx->scope, &ending);
    }
    unref(ctx);
}

struct cf_ctx *cf_ctx_ref(struct cf_ctx *ctx)
{
    return ref(ctx);
}

void cf_ctx_unref(struct cf_ctx *ctx)
{
    if (ctx != NULL) {
        unref(ctx);
    }
}

/* Operations */

void cf_ctx_cancel_at(struct cf_ctx *ctx, enum cf_reason reason, const struct cf_err *why,
                      const char *file, int line)
{
    struct ending ending = {
        .code = CF_ECANCELED, .reason = reason, .why = why, .file = file, .line = line};

    CF_ASSERT(ctx->kind == KIND_SCOPE);
    CF_ASSERT(reason != CF_REASON_NONE);
    cancel(ctx->scope, &ending);
}

bool cf__ctx_subscribe(struct cf_ctx *ctx, struct cf__ctx_waiter *waiter)
{
    struct scope *scope = ctx->scope;
    bool live;

    cf__list_init(&waiter->node);
    if (scope == NULL) {
        return true;
    }
    (void)pthread_mutex_lock(&scope->mu);
    live = atomic_load(&scope->code) == CF_OK;
    if (live) {
        cf__list_push(&scope->waiters, &waiter->node);
    }
    (void)pthread_mutex_unlock(&scope->mu);
    return live;
}

bool cf__ctx_unsubscribe(struct cf_ctx *ctx, struct cf__ctx_waiter *waiter)
{
    struct scope *scope = ctx->scope;
    bool prevented;

    if (scope == NULL) {
        return true;
    }
    (void)pthread_mutex_lock(&scope->mu);
    prevented = !cf__list_empty(&waiter->node);
    cf__list_unlink(&waiter->node);
    (void)pthread_mutex_unlock(&scope->mu);
    return prevented;
}

static void after_unref(struct cf_ctx_after *after, unsigned count)
{
    if (atomic_fetch_sub(&after->refs, count) == count) {
        unref(after->ctx);
        free(after);
    }
}

static void after_run(struct cf_deferred *deferred)
{
    struct cf_ctx_after *after = CF__CONTAINER(deferred, struct cf_ctx_after, deferred);

    after->fn(after->arg);
    after_unref(after, 1);
}

static void after_fire(struct cf__ctx_waiter *waiter)
{
    struct cf_ctx_after *after = CF__CONTAINER(waiter, struct cf_ctx_after, waiter);

    after->source->defer(after->source, &after->deferred);
}

enum cf_code cf_ctx_after(struct cf_ctx *ctx, cf_ctx_after_fn fn, void *arg,
                          struct cf_ctx_after **out, struct cf_err *err)
{
    struct cf_timer_source *source = cf_timer_source();
    struct cf_ctx_after *after;

    if (source->defer == NULL) {
        source = cf__timer_thread();
    }
    if (source == cf__timer_thread() && !cf__timer_thread_start()) {
        return cf_err_set(err, CF_ENOMEM, "no thread for timers");
    }
    after = calloc(1, sizeof(*after));
    if (after == NULL) {
        return no_memory(err);
    }
    after->waiter.fire = after_fire;
    after->deferred.run = after_run;
    atomic_init(&after->refs, 2);
    after->ctx = ref(ctx);
    after->source = source;
    after->fn = fn;
    after->arg = arg;
    *out = after;
    if (cf_ctx_err(ctx) != CF_OK || !cf__ctx_subscribe(ctx, &after->waiter)) {
        cf__list_init(&after->waiter.node);
        after_fire(&after->waiter);
    }
    return CF_OK;
}

bool cf_ctx_after_stop(struct cf_ctx_after *own_after)
{
    bool prevented = cf__ctx_unsubscribe(own_after->ctx, &own_after->waiter);

    after_unref(own_after, prevented ? 2 : 1); /* The call's, too: it will not come. */
    return prevented;
}

/* Queries */

/* End `scope`, whose deadline, that of `timed`, has passed. */
static void notice_deadline(struct scope *scope, struct scope *timed)
{
    struct ending ending = {.code = CF_OK};

    cancel_late(timed);

    /* Who ends `timed` may be another thread that has not come down to `scope` yet. It need not be
     * waited for: what it will say here is constant now. */
    ending.code = (enum cf_code)atomic_load(&timed->code);
    cancel_for(scope, timed->caused_by, &ending);
}

enum cf_code cf_ctx_err(struct cf_ctx *ctx)
{
    struct scope *scope = ctx->scope;
    struct scope *timed = ctx->timed;
    int code;

    if (scope == NULL) {
        return CF_OK;
    }
    code = atomic_load(&scope->code);
    if (code == CF_OK && timed != NULL &&
        timed->source->now_ns(timed->source) >= timed->deadline_ns) {
        notice_deadline(scope, timed);
        code = atomic_load(&scope->code);
    }
    if (code != CF_OK && atomic_load(&scope->done_fd) >= 0) {
        /* It is written after the code, with mu held: once this says done, the descriptor does. */
        (void)pthread_mutex_lock(&scope->mu);
        (void)pthread_mutex_unlock(&scope->mu);
    }
    return (enum cf_code)code;
}

/* Say how `ctx` ended. Apart from cf_ctx_check(), which most calls leave without: compilers that
 * clear what is on the stack would clear a cause each time. */
static enum cf_code describe_end(struct cf_ctx *ctx, enum cf_code code, struct cf_err *err)
{
    struct cf_cause cause;

    (void)cf_ctx_cause(ctx, &cause); /* It is done. */
    if (strcmp(cause.err.msg, cf_code_text(code)) == 0) {
        return cf_err_set(err, code, "%s", cause.err.msg); /* There is no more to say. */
    }
    return cf_err_set(err, code, "%s: %s", cf_code_text(code), cause.err.msg);
}

enum cf_code cf_ctx_check(struct cf_ctx *ctx, struct cf_err *err)
{
    enum cf_code code = cf_ctx_err(ctx);

    return code == CF_OK || err == NULL ? code : describe_end(ctx, code, err);
}

bool cf_ctx_cause(struct cf_ctx *ctx, struct cf_cause *out)
{
    enum cf_code code = cf_ctx_err(ctx);
    struct scope *cause;

    *out = (struct cf_cause){.reason = CF_REASON_NONE, .budget_ns = CF_NEVER};
    if (code == CF_OK) {
        return false;
    }
    cause = ctx->scope->caused_by; /* Constant now: code was stored after it. */
    out->reason = cause->reason;
    out->file = cause->file;
    out->line = cause->line;
    out->at_ns = cause->at_ns;
    out->budget_ns = cause->budget_ns;
    if (cause->has_why) {
        out->err = cause->why;
    } else if (cause->reason == CF_REASON_CANCELED || cause->reason == CF_REASON_DEADLINE) {
        (void)cf_err_set(&out->err, code, "%s", cf_code_text(code));
    } else {
        (void)cf_err_set(&out->err, code, "%s", cf_reason_name(cause->reason));
    }
    return true;
}

int64_t cf_ctx_deadline_ns(const struct cf_ctx *ctx)
{
    return ctx->timed != NULL ? ctx->timed->deadline_ns : CF_NEVER;
}

int64_t cf_ctx_remaining_ns(const struct cf_ctx *ctx)
{
    const struct scope *timed = ctx->timed;
    int64_t now_ns;

    if (timed == NULL) {
        return CF_NEVER;
    }
    now_ns = timed->source->now_ns(timed->source);
    return timed->deadline_ns > now_ns ? timed->deadline_ns - now_ns : 0;
}

void *cf_ctx_value(const struct cf_ctx *ctx, const void *key)
{
    for (; ctx != NULL; ctx = ctx->parent) {
        if (ctx->key == key) {
            return ctx->value;
        }
    }
    return NULL;
}

enum cf_code cf_ctx_done_fd(struct cf_ctx *ctx, int *out_fd, struct cf_err *err)
{
    struct scope *scope = ctx->scope;
    enum cf_code code = CF_OK;

    if (scope == NULL) {
        return cf_err_set(err, CF_EINVAL, "a context that cannot end has no descriptor");
    }
    (void)pthread_mutex_lock(&scope->mu);
    if (scope->done_fd < 0) {
        unsigned done = atomic_load(&scope->code) != CF_OK;

        scope->done_fd = eventfd(done, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    if (scope->done_fd < 0) {
        code = cf_err_set_sys(err, CF_EIO, errno, "eventfd");
    } else {
        *out_fd = scope->done_fd;
    }
    (void)pthread_mutex_unlock(&scope->mu);
    return code;
}

const char *cf_reason_name(enum cf_reason reason)
{
    switch (reason) {
#define CF_REASON_NAME(symbol, name)                                                               \
    case symbol:                                                                                   \
        return name;
        CF_REASONS(CF_REASON_NAME)
#undef CF_REASON_NAME
    }
    return "unknown";
}
