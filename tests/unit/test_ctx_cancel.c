/* SPDX-License-Identifier: MIT */
/* How contexts end, and what is said about it. See test_ctx.c. */
#include <curfew/ctx.h>

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "ctx_kit.h"
#include "onboth.h"

#define DEEP 10000

static const char key_a;

/* cancel */

/* Go: TestCancelRemoves. The map of children is not to be seen from here: but children that were
 * still in it would be touched after they were freed. */
START_ONBOTH(cancel_takes_the_child_out_of_its_parent)
{
    struct cf_ctx *parent;
    struct cf_ctx *stays;
    struct cf_ctx *goes[3];

    vclock_start(&vclock);
    parent = with_cancel(cf_ctx_background());
    goes[0] = with_cancel(parent);
    goes[1] = with_timeout(parent, LONG_NS);
    stays = with_timeout(parent, LONG_NS);
    goes[2] = with_cancel(parent);
    for (int i = 0; i < 3; i++) {
        cf_ctx_cancel(goes[i]);
    }
    cf_ctx_free(goes[0]);
    cf_ctx_free(goes[1]);
    ck_assert_uint_eq(vclock_armed(&vclock), 1);
    assert_live(stays);
    cf_ctx_cancel_cause(parent, CF_REASON_USER, &because);
    assert_done(stays, CF_ECANCELED, CF_REASON_USER);
    assert_done(goes[2], CF_ECANCELED, CF_REASON_CANCELED);
    cf_ctx_free(goes[2]);
    cf_ctx_free(stays);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(cancel_again_changes_nothing)
{
    struct counter counter;
    struct cf_ctx *ctx;
    struct cf_cause first;
    struct cf_cause later;

    vclock_start(&vclock);
    counter_init(&counter);
    ctx = with_timeout(cf_ctx_background(), 100);
    ck_assert(cf__ctx_subscribe(ctx, &counter.waiter));
    cf_ctx_cancel_cause(ctx, CF_REASON_CLIENT_GONE, &because);
    ck_assert(cf_ctx_cause(ctx, &first));
    vclock_advance(&vclock, 50);
    cf_ctx_cancel(ctx);
    cf_ctx_cancel_cause(ctx, CF_REASON_SHED, &too_slow);
    vclock_advance(&vclock, 100);
    ck_assert(cf_ctx_cause(ctx, &later));
    ck_assert_int_eq(later.reason, CF_REASON_CLIENT_GONE);
    ck_assert_str_eq(later.err.msg, "because");
    ck_assert_int_eq(later.line, first.line);
    ck_assert_int_eq(later.at_ns, VCLOCK_START_NS);
    ck_assert_int_eq(later.budget_ns, 100);
    ck_assert_uint_eq(counter.fired, 1);
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(cancel_records_who_where_and_when)
{
    struct cf_ctx *ctx;
    struct cf_ctx *child;
    struct cf_cause cause;
    int line;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 100);
    child = with_timeout(ctx, 40);
    vclock_advance(&vclock, 7);
    line = __LINE__ + 1;
    cf_ctx_cancel_cause(ctx, CF_REASON_OPERATOR, &because);
    vclock_advance(&vclock, 7);
    ck_assert(cf_ctx_cause(child, &cause));
    ck_assert_int_eq(cause.reason, CF_REASON_OPERATOR);
    ck_assert_int_eq(cause.err.code, CF_ECONFLICT);
    ck_assert_str_eq(cause.err.msg, "because");
    ck_assert_str_eq(cause.file, __FILE__);
    ck_assert_int_eq(cause.line, line);
    ck_assert_int_eq(cause.at_ns, VCLOCK_START_NS + 7);
    ck_assert_int_eq(cause.budget_ns, 93); /* Of the one that was canceled. */
    cf_ctx_free(child);
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(cancel_without_a_deadline_has_a_budget_of_for_ever)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    int64_t before_ns = cf_now_ns();
    struct cf_cause cause;

    cf_ctx_cancel(ctx);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cause.budget_ns, CF_NEVER);
    ck_assert_int_ge(cause.at_ns, before_ns);
    ck_assert_int_le(cause.at_ns, cf_now_ns());
    cf_ctx_free(ctx);
}
END_ONBOTH

START_ONBOTH(cancel_after_the_deadline_that_nobody_saw_is_canceled)
{
    struct cf_ctx *ctx;
    struct cf_cause cause;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 100);
    vclock_stall(&vclock, 150);
    cf_ctx_cancel(ctx); /* Comes first: the timer had no turn. */
    assert_done(ctx, CF_ECANCELED, CF_REASON_CANCELED);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cause.budget_ns, 0);
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(cancel_of_a_deep_tree_does_not_recurse)
{
    static struct cf_ctx *tree[DEEP];
    struct cf_ctx *ctx = cf_ctx_background();

    vclock_start(&vclock);
    for (int i = 0; i < DEEP; i++) {
        tree[i] = ctx = i % 100 == 0 ? with_timeout(ctx, LONG_NS - i) : with_cancel(ctx);
    }
    ck_assert_uint_eq(vclock_armed(&vclock), DEEP / 100);
    cf_ctx_cancel_cause(tree[0], CF_REASON_USER, &because);
    ck_assert_uint_eq(vclock_armed(&vclock), 0);
    for (int i = 0; i < DEEP; i++) {
        if (cf_ctx_err(tree[i]) != CF_ECANCELED) {
            ck_abort_msg("context %d is not canceled", i);
        }
    }
    ck_assert_str_eq(cause_text(ctx), "because");
    for (int i = 0; i < DEEP; i++) {
        cf_ctx_free(tree[i]);
    }
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(cancel_of_a_wide_tree_reaches_all)
{
    static struct cf_ctx *children[DEEP];
    struct cf_ctx *parent = with_cancel(cf_ctx_background());

    for (int i = 0; i < DEEP; i++) {
        children[i] = with_cancel(parent);
    }
    for (int i = 0; i < DEEP; i += 2) {
        cf_ctx_free(children[i]); /* Holes. */
    }
    cf_ctx_cancel_cause(parent, CF_REASON_USER, &because);
    for (int i = 1; i < DEEP; i += 2) {
        if (cf_ctx_err(children[i]) != CF_ECANCELED) {
            ck_abort_msg("child %d is not canceled", i);
        }
        cf_ctx_free(children[i]);
    }
    cf_ctx_free(parent);
}
END_ONBOTH

/* Go: TestLayersCancel, TestLayersTimeout. */
#define LAYERS 30

static uint64_t random_state;

static unsigned next_random(unsigned below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(random_state >> 33) % below;
}

/* How layers end, and by which clock. */
enum end {
    BY_CANCEL,
    BY_TIME,
    BY_REAL_TIME,
};

static void end_layers(enum end end, struct cf_ctx *victim, struct cf_ctx *ctx)
{
    switch (end) {
    case BY_CANCEL:
        cf_ctx_cancel(victim);
        break;
    case BY_TIME:
        vclock_advance(&vclock, 1);
        break;
    case BY_REAL_TIME:
        wait_done(ctx);
        break;
    }
}

static void check_values(uint64_t seed, const char *kinds, struct cf_ctx *layers[LAYERS])
{
    for (int i = 0; i < LAYERS; i++) {
        ck_assert_msg(kinds[i] != 'v' || cf_ctx_value(layers[LAYERS - 1], &layers[i]) == &layers[i],
                      "seed %" PRIu64 ": value of layer %d of %s", seed, i, kinds);
    }
}

static void check_layers(enum end end, uint64_t seed)
{
    static const int64_t timeouts_ns[] = {LONG_NS, 1, CF_MS};
    struct cf_ctx *layers[LAYERS];
    char kinds[LAYERS + 1] = "";
    struct cf_ctx *ctx = cf_ctx_background();
    struct cf_ctx *victim = NULL;

    if (end != BY_REAL_TIME) {
        vclock_start(&vclock);
    }
    random_state = seed;
    for (int i = 0; i < LAYERS; i++) {
        /* The first three are one of each. */
        kinds[i] = "vct"[i < 3 ? (unsigned)i : next_random(3)];
        if (kinds[i] == 'v') {
            ctx = with_value(ctx, &layers[i], &layers[i]);
        } else if (kinds[i] == 'c') {
            ctx = with_cancel(ctx);
        } else {
            ctx = with_timeout(ctx, timeouts_ns[end]);
        }
        layers[i] = ctx;
        if (kinds[i] != 'v' && (victim == NULL || next_random(2) == 0)) {
            victim = ctx;
        }
    }
    check_values(seed, kinds, layers);
    ck_assert_msg(end == BY_REAL_TIME || !told(ctx), "seed %" PRIu64 ": %s", seed, kinds);
    end_layers(end, victim, ctx);
    check_values(seed, kinds, layers);
    ck_assert_msg(told(ctx), "seed %" PRIu64 ": %s", seed, kinds);
    ck_assert_int_eq(cf_ctx_err(ctx), end == BY_CANCEL ? CF_ECANCELED : CF_EDEADLINE);
    for (int i = 0; i < LAYERS; i++) {
        cf_ctx_free(layers[i]);
    }
    if (end != BY_REAL_TIME) {
        vclock_stop(&vclock);
    }
}

START_ONBOTH(cancel_of_random_layers_keeps_their_values)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        check_layers(BY_CANCEL, seed);
    }
}
END_ONBOTH

START_ONBOTH(cancel_by_time_of_random_layers_keeps_their_values)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        check_layers(BY_TIME, seed);
    }
    for (uint64_t seed = 1; seed <= 5; seed++) {
        check_layers(BY_REAL_TIME, seed); /* The timers of the thread, and of the loop. */
    }
}
END_ONBOTH

/* err */

START_ONBOTH(err_looks_at_the_clock_although_no_timer_had_a_turn)
{
    struct cf_ctx *parent;
    struct cf_ctx *ctx;
    struct cf_ctx *value;
    struct cf_cause cause;

    vclock_start(&vclock);
    parent = with_deadline_cause(cf_ctx_background(), VCLOCK_START_NS + 100, &too_slow);
    ctx = with_cancel(parent);
    value = with_value(ctx, &key_a, NULL);
    vclock_stall(&vclock, 99);
    ck_assert_int_eq(cf_ctx_err(value), CF_OK);
    vclock_stall(&vclock, 51);
    ck_assert(!told(value));
    ck_assert_int_eq(cf_ctx_err(value), CF_EDEADLINE);
    assert_done(value, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(parent, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert_uint_eq(vclock_armed(&vclock), 0);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_str_eq(cause.err.msg, "too slow");
    ck_assert_int_eq(cause.at_ns, VCLOCK_START_NS + 150); /* When it was noticed. */
    ck_assert_int_eq(cause.budget_ns, 0);
    cf_ctx_free(value);
    cf_ctx_free(ctx);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

static sem_t gate_reached;
static sem_t gate_opened;

/* Hold up whoever cancels, with the lock of the context that is waited for. */
static void hold_up(struct cf__ctx_waiter *waiter)
{
    (void)waiter;
    (void)sem_post(&gate_reached);
    (void)sem_wait(&gate_opened);
}

static void *pass_the_deadline(void *arg)
{
    vclock_advance(&vclock, 100);
    return arg;
}

/* The timer is on its way through the tree and has not come to one context yet: it is held up at a
 * sibling, at the one before or the one after, whichever comes first. */
START_TEST(err_is_late_while_another_thread_tells_the_tree)
{
    struct cf__ctx_waiter gates[2] = {{.fire = hold_up}, {.fire = hold_up}};
    struct cf_ctx *siblings[2];
    struct cf_ctx *parent;
    struct cf_ctx *ctx;
    struct cf_ctx *child;
    struct cf_cause cause;
    pthread_t thread;
    enum cf_code code;

    vclock_start(&vclock);
    ck_assert_int_eq(sem_init(&gate_reached, 0, 0), 0);
    ck_assert_int_eq(sem_init(&gate_opened, 0, 0), 0);
    parent = with_timeout(cf_ctx_background(), 100);
    siblings[0] = with_cancel(parent);
    ctx = with_cancel(parent);
    siblings[1] = with_cancel(parent);
    child = with_cancel(ctx);
    for (int i = 0; i < 2; i++) {
        ck_assert(cf__ctx_subscribe(siblings[i], &gates[i]));
    }
    ck_assert_int_eq(pthread_create(&thread, NULL, pass_the_deadline, NULL), 0);
    ck_assert_int_eq(sem_wait(&gate_reached), 0);
    code = cf_ctx_err(child);
    ck_assert_int_eq(sem_post(&gate_opened), 0);
    ck_assert_int_eq(sem_post(&gate_opened), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(code, CF_EDEADLINE);
    assert_done(child, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert(cf_ctx_cause(child, &cause));
    ck_assert_int_eq(cause.at_ns, VCLOCK_START_NS + 100);
    for (int i = 0; i < 2; i++) {
        ck_assert(!cf__ctx_unsubscribe(siblings[i], &gates[i]));
        cf_ctx_free(siblings[i]);
    }
    cf_ctx_free(child);
    cf_ctx_free(ctx);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_TEST

/* check */

START_ONBOTH(check_says_why)
{
    static const struct {
        enum cf_reason reason;
        const struct cf_err *why;
        const char *message;
    } cases[] = {
        {CF_REASON_CANCELED, NULL, "context canceled"},
        {CF_REASON_CLIENT_GONE, NULL, "context canceled: client_gone"},
        {CF_REASON_USER, &because, "context canceled: because"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cf_ctx *ctx = with_cancel(cf_ctx_background());

        memset(&err, 'x', sizeof(err));
        ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_OK);
        ck_assert_int_eq(err.msg[0], 'x'); /* Written only on failure. */
        cf_ctx_cancel_cause(ctx, cases[i].reason, cases[i].why);
        ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_ECANCELED);
        ck_assert_int_eq(err.code, CF_ECANCELED);
        ck_assert_str_eq(err.msg, cases[i].message);
        cf_ctx_free(ctx);
    }
}
END_ONBOTH

START_ONBOTH(check_of_a_deadline_says_so)
{
    struct cf_ctx *ctx = with_timeout(cf_ctx_background(), 0);

    ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_EDEADLINE);
    ck_assert_str_eq(err.msg, "context deadline exceeded");
    cf_ctx_free(ctx);
}
END_ONBOTH

START_ONBOTH(check_of_a_deadline_with_a_cause_says_that_too)
{
    struct cf_ctx *ctx = with_deadline_cause(cf_ctx_background(), 0, &too_slow);

    ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_EDEADLINE);
    ck_assert_str_eq(err.msg, "context deadline exceeded: too slow");
    cf_ctx_free(ctx);
}
END_ONBOTH

/* cause */

/* Go: TestCause. A stack of contexts, from the outermost: c cancel, w without_cancel, l late from
 * birth, f with a far deadline; L and F carry "too slow" as their deadline's cause. Then what is
 * done, two characters each: the number of the context, and + for a cause or - for none. */
static const struct {
    const char *stack;
    const char *acts;
    enum cf_code code;
    const char *cause;
} causes[] = {
    {"c", "", CF_OK, NULL},
    {"c", "0-", CF_ECANCELED, "context canceled"},
    {"c", "0+", CF_ECANCELED, "cause 0"},
    {"c", "0+0+", CF_ECANCELED, "cause 0"},
    {"cc", "0+1+", CF_ECANCELED, "cause 0"},
    {"cc", "1+0+", CF_ECANCELED, "cause 1"},
    {"cc", "0+1-", CF_ECANCELED, "cause 0"},
    {"cc", "1-0+", CF_ECANCELED, "context canceled"},
    {"cc", "0-1+", CF_ECANCELED, "context canceled"},
    {"cc", "1+0-", CF_ECANCELED, "cause 1"},
    {"l", "0-", CF_EDEADLINE, "context deadline exceeded"},
    {"f", "0-", CF_ECANCELED, "context canceled"},
    {"L", "0-", CF_EDEADLINE, "too slow"},
    {"F", "0-", CF_ECANCELED, "context canceled"},
    {"cL", "0+", CF_EDEADLINE, "too slow"},
    {"cF", "0+", CF_ECANCELED, "cause 0"},
    {"w", "", CF_OK, NULL},
    {"cw", "0+", CF_OK, NULL},
    {"Lw", "0-", CF_OK, NULL},
    /* Not in Go's table. */
    {"Lc", "1+", CF_EDEADLINE, "too slow"},
    {"LF", "1+", CF_EDEADLINE, "too slow"},
    {"Lwc", "2+", CF_ECANCELED, "cause 2"},
    {"ccc", "1+0+", CF_ECANCELED, "cause 1"},
    {"ccc", "2-1+0+", CF_ECANCELED, "context canceled"},
};

static struct cf_ctx *stack_up(struct cf_ctx *parent, char kind)
{
    switch (kind) {
    case 'c':
        return with_cancel(parent);
    case 'w':
        return without_cancel(parent);
    case 'l':
        return with_timeout(parent, 0);
    case 'f':
        return with_timeout(parent, LONG_NS);
    case 'L':
        return with_deadline_cause(parent, VCLOCK_START_NS, &too_slow);
    case 'F':
        return with_deadline_cause(parent, VCLOCK_START_NS + LONG_NS, &too_slow);
    default:
        ck_abort_msg("no such kind: %c", kind);
    }
    return NULL;
}

START_ONBOTH(cause_is_what_came_first)
{
    vclock_start(&vclock);
    for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
        struct cf_ctx *stack[4];
        struct cf_ctx *ctx = cf_ctx_background();
        size_t n = 0;
        const char *text;

        for (; causes[i].stack[n] != '\0'; n++) {
            stack[n] = ctx = stack_up(ctx, causes[i].stack[n]);
        }
        for (const char *act = causes[i].acts; *act != '\0'; act += 2) {
            struct cf_err why;

            (void)cf_err_set(&why, CF_EINTERNAL, "cause %c", act[0]);
            if (act[1] == '+') {
                cf_ctx_cancel_cause(stack[act[0] - '0'], CF_REASON_USER, &why);
            } else {
                cf_ctx_cancel(stack[act[0] - '0']);
            }
        }
        text = cause_text(ctx);
        ck_assert_msg(cf_ctx_err(ctx) == causes[i].code, "%s %s: %s", causes[i].stack,
                      causes[i].acts, cf_code_name(cf_ctx_err(ctx)));
        ck_assert_pstr_eq(text, causes[i].cause);
        while (n > 0) {
            cf_ctx_free(stack[--n]);
        }
    }
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestCause, of the background. */
START_ONBOTH(cause_of_what_lives_is_none)
{
    struct cf_cause cause;

    memset(&cause, 'x', sizeof(cause));
    ck_assert(!cf_ctx_cause(cf_ctx_background(), &cause));
    ck_assert_int_eq(cause.reason, CF_REASON_NONE);
    ck_assert_int_eq(cause.err.code, CF_OK);
    ck_assert_str_eq(cause.err.msg, "");
    ck_assert_ptr_null(cause.file);
    ck_assert_int_eq(cause.budget_ns, CF_NEVER);
}
END_ONBOTH

START_ONBOTH(cause_without_an_error_says_the_reason)
{
    for (int reason = CF_REASON_CANCELED; reason <= CF_REASON_USER; reason++) {
        struct cf_ctx *ctx = with_cancel(cf_ctx_background());
        struct cf_cause cause;

        cf_ctx_cancel_cause(ctx, (enum cf_reason)reason, NULL);
        ck_assert(cf_ctx_cause(ctx, &cause));
        ck_assert_int_eq(cause.reason, reason);
        ck_assert_int_eq(cause.err.code, CF_ECANCELED);
        if (reason != CF_REASON_CANCELED && reason != CF_REASON_DEADLINE) {
            ck_assert_str_eq(cause.err.msg, cf_reason_name(cause.reason));
        } else {
            ck_assert_str_eq(cause.err.msg, "context canceled");
        }
        cf_ctx_free(ctx);
    }
}
END_ONBOTH

/* deadline, remaining */

START_ONBOTH(remaining_shrinks_to_zero)
{
    struct cf_ctx *ctx;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 100);
    ck_assert_int_eq(cf_ctx_deadline_ns(ctx), VCLOCK_START_NS + 100);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), 100);
    vclock_advance(&vclock, 99);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), 1);
    vclock_advance(&vclock, 1);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), 0);
    vclock_advance(&vclock, 1);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), 0);
    ck_assert_int_eq(cf_ctx_deadline_ns(ctx), VCLOCK_START_NS + 100);
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

/* done_fd */

START_ONBOTH(done_fd_made_before_becomes_readable)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *child = with_cancel(parent);
    struct cf_ctx *value = with_value(child, &key_a, NULL);
    int fds[3] = {-1, -1, -1};

    ck_assert_int_eq(cf_ctx_done_fd(parent, &fds[0], &err), CF_OK);
    ck_assert_int_eq(cf_ctx_done_fd(child, &fds[1], &err), CF_OK);
    ck_assert_int_eq(cf_ctx_done_fd(value, &fds[2], NULL), CF_OK);
    ck_assert_int_ge(fds[0], 0);
    ck_assert_int_ne(fds[1], fds[0]);
    ck_assert_int_eq(fds[2], fds[1]); /* Of the context that ends it. */
    ck_assert(!told(parent) && !told(child));
    cf_ctx_cancel(parent);
    ck_assert(told(parent) && told(child) && told(value));
    ck_assert(told(child)); /* And stays so. */
    cf_ctx_free(value);
    cf_ctx_free(child);
    cf_ctx_free(parent);
}
END_ONBOTH

START_ONBOTH(done_fd_made_after_is_readable_at_once)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *child = with_cancel(parent);
    struct cf_ctx *born_done;

    cf_ctx_cancel(parent);
    born_done = with_cancel(parent);
    ck_assert(told(child));
    ck_assert(told(born_done));
    cf_ctx_free(born_done);
    cf_ctx_free(child);
    cf_ctx_free(parent);
}
END_ONBOTH

START_ONBOTH(done_fd_becomes_readable_by_the_timer)
{
    struct cf_ctx *ctx;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 1);
    ck_assert(!told(ctx));
    vclock_advance(&vclock, 1);
    ck_assert(told(ctx));
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(done_fd_is_closed_with_the_context)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx *next;
    int fd;
    int fd_next;

    ck_assert_int_eq(cf_ctx_done_fd(ctx, &fd, &err), CF_OK);
    cf_ctx_free(ctx);
    next = with_cancel(cf_ctx_background());
    ck_assert_int_eq(cf_ctx_done_fd(next, &fd_next, &err), CF_OK);
    ck_assert_int_eq(fd_next, fd); /* The lowest that is free. */
    cf_ctx_free(next);
}
END_ONBOTH

START_ONBOTH(done_fd_of_what_never_ends_is_invalid)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *apart = without_cancel(parent);
    struct cf_ctx *value = with_value(apart, &key_a, NULL);
    int fd = -7;

    ck_assert_int_eq(cf_ctx_done_fd(cf_ctx_background(), &fd, &err), CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_int_eq(cf_ctx_done_fd(apart, &fd, &err), CF_EINVAL);
    ck_assert_int_eq(cf_ctx_done_fd(value, &fd, NULL), CF_EINVAL);
    ck_assert_int_eq(fd, -7);
    cf_ctx_free(value);
    cf_ctx_free(apart);
    cf_ctx_free(parent);
}
END_ONBOTH

START_ONBOTH(done_fd_limit_reached_fails_and_may_be_tried_again)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct rlimit before;
    struct rlimit none;
    enum cf_code code;
    int fd = -7;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    code = cf_ctx_done_fd(ctx, &fd, &err);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(code, CF_EIO);
    ck_assert_int_eq(err.sys, EMFILE);
    ck_assert_int_eq(fd, -7);
    cf_ctx_cancel(ctx);
    ck_assert(told(ctx));
    cf_ctx_free(ctx);
}
END_ONBOTH

/* reason_name */

static const struct {
    enum cf_reason reason;
    const char *name;
} reasons[] = {
    /* They stand in logs, problem documents and metrics: changing one breaks what reads those. */
    {CF_REASON_NONE, "none"},
    {CF_REASON_CANCELED, "canceled"},
    {CF_REASON_DEADLINE, "deadline"},
    {CF_REASON_CLIENT_GONE, "client_gone"},
    {CF_REASON_SIBLING_FAILED, "sibling_failed"},
    {CF_REASON_OPERATOR, "operator"},
    {CF_REASON_SHUTDOWN, "shutdown"},
    {CF_REASON_SHED, "shed"},
    {CF_REASON_USER, "user"},
    {(enum cf_reason)99, "unknown"},
};

START_TEST(reason_name_is_stable)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        ck_assert_str_eq(cf_reason_name(reasons[i].reason), reasons[i].name);
    }
}
END_TEST

START_TEST(cancel_of_a_value_asserts)
{
    cf_ctx_cancel(with_value(with_cancel(cf_ctx_background()), &key_a, NULL));
}
END_TEST

START_TEST(cancel_of_without_cancel_asserts)
{
    cf_ctx_cancel(without_cancel(cf_ctx_background()));
}
END_TEST

START_TEST(cancel_of_the_background_asserts)
{
    cf_ctx_cancel(cf_ctx_background());
}
END_TEST

START_TEST(cancel_for_no_reason_asserts)
{
    cf_ctx_cancel_cause(with_cancel(cf_ctx_background()), CF_REASON_NONE, NULL);
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_ctx_cancel(void)
{
    Suite *suite = suite_create("ctx_cancel");
    TCase *tc;

    tc = add(suite, "cancel");
    tcase_add_onboth(tc, cancel_takes_the_child_out_of_its_parent);
    tcase_add_onboth(tc, cancel_again_changes_nothing);
    tcase_add_onboth(tc, cancel_records_who_where_and_when);
    tcase_add_onboth(tc, cancel_without_a_deadline_has_a_budget_of_for_ever);
    tcase_add_onboth(tc, cancel_after_the_deadline_that_nobody_saw_is_canceled);
    tcase_add_onboth(tc, cancel_of_a_deep_tree_does_not_recurse);
    tcase_add_onboth(tc, cancel_of_a_wide_tree_reaches_all);
    tcase_add_onboth(tc, cancel_of_random_layers_keeps_their_values);
    tcase_add_onboth(tc, cancel_by_time_of_random_layers_keeps_their_values);

    tc = add(suite, "err");
    tcase_add_onboth(tc, err_looks_at_the_clock_although_no_timer_had_a_turn);
    tcase_add_test(tc, err_is_late_while_another_thread_tells_the_tree);

    tc = add(suite, "check");
    tcase_add_onboth(tc, check_says_why);
    tcase_add_onboth(tc, check_of_a_deadline_says_so);
    tcase_add_onboth(tc, check_of_a_deadline_with_a_cause_says_that_too);

    tc = add(suite, "cause");
    tcase_add_onboth(tc, cause_is_what_came_first);
    tcase_add_onboth(tc, cause_of_what_lives_is_none);
    tcase_add_onboth(tc, cause_without_an_error_says_the_reason);

    tc = add(suite, "remaining");
    tcase_add_onboth(tc, remaining_shrinks_to_zero);

    tc = add(suite, "done_fd");
    tcase_add_onboth(tc, done_fd_made_before_becomes_readable);
    tcase_add_onboth(tc, done_fd_made_after_is_readable_at_once);
    tcase_add_onboth(tc, done_fd_becomes_readable_by_the_timer);
    tcase_add_onboth(tc, done_fd_is_closed_with_the_context);
    tcase_add_onboth(tc, done_fd_of_what_never_ends_is_invalid);
    tcase_add_onboth(tc, done_fd_limit_reached_fails_and_may_be_tried_again);

    tc = add(suite, "reason_name");
    tcase_add_test(tc, reason_name_is_stable);

    tc = add(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, cancel_of_a_value_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, cancel_of_without_cancel_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, cancel_of_the_background_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, cancel_for_no_reason_asserts, SIGABRT);
    return suite;
}
