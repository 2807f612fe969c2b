/* SPDX-License-Identifier: MIT */
/* What programs are made of (a group, a semaphore, a channel, ...), made and used by several tasks
 * at once, on threads and on fibers, in which an allocation fails, or all from one on.
 *
 * Invariant: what was asked for was done, or failed for want of memory; nobody waits for ever; and
 * with memory again the same thing works. Then as many blocks are left as before.
 *
 * The process under test is the worker itself: the library that counts is loaded into this program
 * too. So a run takes no more than a millisecond, and every n has its turn,
 * in the short form too. */
#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <curfew/cache.h>
#include <curfew/chan.h>
#include <curfew/client.h>
#include <curfew/clock.h>
#include <curfew/flight.h>
#include <curfew/group.h>
#include <curfew/limiter.h>
#include <curfew/once.h>
#include <curfew/pipeline.h>
#include <curfew/sem.h>
#include <curfew/wait.h>

#include "peer.h"
#include "places.h"
#include "sweep.h"

#define TASKS 3

/* Who waits so long waits for ever. */
#define LOST_NS (20 * CF_SECOND)
#define LOST_SECONDS 60 /* And where no context ends the wait. */

/* Loops that a worker makes one after another; each may have to draw on the reserve. */
#define LOOPS 100000
#define LOOP_DESCRIPTORS 64

/* So often everything is done before blocks are counted: what is made once has been made. */
#define WARM_UPS 4

/* What one run makes and uses. */
struct tools {
    struct cf_ctx *ctx; /* Ends a wait that would be for ever. */
    struct cf_sem *sem;
    struct cf_once once;
    struct cf_limiter *limiter;
    struct cf_chan *chans[2];
    struct cf_flight *flight;
    struct cf_cache *cache;
    atomic_int done; /* Tasks that did what they are for. */
};

typedef enum cf_code (*tool_fn)(struct tools *tools, struct cf_err *err);

struct scenario {
    const char *name;
    tool_fn make; /* What it has made in part when it fails is dropped. */
    tool_fn use;
    void (*drop)(struct tools *tools);
};

/* One worker's. */
struct run {
    const struct scenario *scenario;
    int place;
    struct nth *nth;
    long blocks;    /* At rest. */
    atomic_bool go; /* The test's thread has done with all that takes memory. */
    int sweep;
    enum nth_mode mode; /* NTH_OFF: a warm-up. */
    long n;
};

/* Helpers */

/* Run the functions as tasks of one group. */
static enum cf_code run_tasks(struct tools *tools, const cf_group_fn fns[TASKS], struct cf_err *err)
{
    struct cf_group *group = NULL;
    enum cf_code code = cf_group_new(tools->ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    atomic_store(&tools->done, 0);
    for (int i = 0; i < TASKS; i++) {
        cf_group_go(group, fns[i], tools);
    }
    code = cf_group_wait(group, err);
    cf_group_free(group);
    EXPECT(code != CF_OK || atomic_load(&tools->done) == TASKS);
    return code;
}

/* group */

static enum cf_code count_one(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = cf_yield(ctx, err);

    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_group(struct tools *tools, struct cf_err *err)
{
    return run_tasks(tools, (cf_group_fn[TASKS]){count_one, count_one, count_one}, err);
}

static enum cf_code make_nothing(struct tools *tools __attribute__((unused)),
                                 struct cf_err *err __attribute__((unused)))
{
    return CF_OK;
}

static void drop_nothing(struct tools *tools __attribute__((unused)))
{
}

/* sem */

static enum cf_code make_sem(struct tools *tools, struct cf_err *err)
{
    return cf_sem_new(1, &tools->sem, err);
}

static enum cf_code hold_permit(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = cf_sem_acquire(ctx, tools->sem, 1, err);

    if (code == CF_OK) {
        code = count_one(ctx, tools, err);
        cf_sem_release(tools->sem, 1);
    }
    return code;
}

static enum cf_code use_sem(struct tools *tools, struct cf_err *err)
{
    enum cf_code code =
        run_tasks(tools, (cf_group_fn[TASKS]){hold_permit, hold_permit, hold_permit}, err);

    /* No permit is lost. */
    EXPECT(cf_sem_try_acquire(tools->sem, 1));
    cf_sem_release(tools->sem, 1);
    return code;
}

static void drop_sem(struct tools *tools)
{
    cf_sem_free(tools->sem);
}

/* once */

static enum cf_code make_once(struct tools *tools, struct cf_err *err __attribute__((unused)))
{
    tools->once = (struct cf_once){0};
    return CF_OK;
}

static enum cf_code prepare(struct cf_ctx *ctx, void *arg __attribute__((unused)),
                            struct cf_err *err)
{
    return cf_sleep(ctx, CF_MS / 10, err);
}

static enum cf_code want_prepared(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = cf_once_retry(ctx, &tools->once, prepare, NULL, err);

    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_once(struct tools *tools, struct cf_err *err)
{
    return run_tasks(tools, (cf_group_fn[TASKS]){want_prepared, want_prepared, want_prepared}, err);
}

/* limiter */

static enum cf_code make_limiter(struct tools *tools, struct cf_err *err)
{
    return cf_limiter_new(10000, 1, &tools->limiter, err);
}

static enum cf_code wait_token(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = cf_limiter_wait(ctx, tools->limiter, 1, err);

    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_limiter(struct tools *tools, struct cf_err *err)
{
    return run_tasks(tools, (cf_group_fn[TASKS]){wait_token, wait_token, wait_token}, err);
}

static void drop_limiter(struct tools *tools)
{
    cf_limiter_free(tools->limiter);
}

/* chan */

static enum cf_code make_chans(struct tools *tools, struct cf_err *err)
{
    enum cf_code code = cf_chan_new(sizeof(int), 0, &tools->chans[0], err);

    return code == CF_OK ? cf_chan_new(sizeof(int), 1, &tools->chans[1], err) : code;
}

static enum cf_code send_first(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = CF_OK;

    for (int i = 0; code == CF_OK && i < TASKS; i++) {
        code = cf_chan_send(ctx, tools->chans[0], &i, err);
    }
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

/* From the one to the other. */
static enum cf_code pass_on(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = CF_OK;

    for (int i = 0; code == CF_OK && i < TASKS; i++) {
        int value = -1;

        code = cf_chan_recv(ctx, tools->chans[0], &value, err);
        EXPECT(code != CF_OK || value == i);
        if (code == CF_OK) {
            code = cf_chan_send(ctx, tools->chans[1], &value, err);
        }
    }
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code recv_second(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = CF_OK;

    for (int i = 0; code == CF_OK && i < TASKS; i++) {
        int value = -1;

        code = cf_chan_recv(ctx, tools->chans[1], &value, err);
        EXPECT(code != CF_OK || value == i);
    }
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

/* What a failure has left in a channel is not for the next use. */
static void drain(struct tools *tools)
{
    int value;

    for (int i = 0; i < 2; i++) {
        while (cf_chan_try_recv(tools->chans[i], &value, NULL) == CF_OK) {
        }
    }
}

static enum cf_code use_chans(struct tools *tools, struct cf_err *err)
{
    enum cf_code code =
        run_tasks(tools, (cf_group_fn[TASKS]){send_first, pass_on, recv_second}, err);

    drain(tools);
    return code;
}

static void drop_chans(struct tools *tools)
{
    cf_chan_free(tools->chans[0]);
    cf_chan_free(tools->chans[1]);
}

static enum cf_code send_second(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = CF_OK;

    for (int i = 0; code == CF_OK && i < TASKS; i++) {
        code = cf_chan_send(ctx, tools->chans[1], &i, err);
    }
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code recv_either(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct tools *tools = arg;
    enum cf_code code = CF_OK;
    int value;
    const struct cf_chan_case cases[] = {
        {CF_CHAN_RECV, tools->chans[0], &value},
        {CF_CHAN_RECV, tools->chans[1], &value},
    };

    for (int i = 0; code == CF_OK && i < 2 * TASKS; i++) {
        size_t which;

        code = cf_chan_select(ctx, cases, 2, &which, err);
    }
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_select(struct tools *tools, struct cf_err *err)
{
    enum cf_code code =
        run_tasks(tools, (cf_group_fn[TASKS]){send_first, recv_either, send_second}, err);

    drain(tools);
    return code;
}

/* pipeline */

static enum cf_code generate(struct cf_ctx *ctx, const void *in __attribute__((unused)),
                             struct cf_outlet *out, void *arg __attribute__((unused)),
                             struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (int i = 1; code == CF_OK && i <= TASKS; i++) {
        code = cf_outlet_send(ctx, out, &i, err);
    }
    return code;
}

static enum cf_code square(struct cf_ctx *ctx, const void *in, struct cf_outlet *out,
                           void *arg __attribute__((unused)), struct cf_err *err)
{
    int value = *(const int *)in * *(const int *)in;

    return cf_outlet_send(ctx, out, &value, err);
}

static enum cf_code add_up(struct cf_ctx *ctx __attribute__((unused)), const void *in,
                           struct cf_outlet *out __attribute__((unused)), void *arg,
                           struct cf_err *err __attribute__((unused)))
{
    struct tools *tools = arg;

    (void)atomic_fetch_add(&tools->done, *(const int *)in);
    return CF_OK;
}

static enum cf_code use_pipeline(struct tools *tools, struct cf_err *err)
{
    const struct cf_stage stages[] = {
        {.fn = generate, .out_size = sizeof(int)},
        {.fn = square, .out_size = sizeof(int), .workers = 2, .capacity = 1},
        {.fn = add_up, .arg = tools},
    };
    enum cf_code code;

    atomic_store(&tools->done, 0);
    code = cf_pipeline_run(tools->ctx, stages, 3, err);
    EXPECT(code != CF_OK || atomic_load(&tools->done) == 1 + 4 + 9);
    return code;
}

/* flight */

static enum cf_code load_text(struct cf_ctx *ctx, void *arg __attribute__((unused)),
                              struct cf_value **out, struct cf_err *err)
{
    enum cf_code code = cf_yield(ctx, err);

    return code == CF_OK ? cf_value_new("text", sizeof("text"), out, err) : code;
}

static enum cf_code make_flight(struct tools *tools, struct cf_err *err)
{
    return cf_flight_new(cf_ctx_background(), NULL, &tools->flight, err);
}

static enum cf_code want_loaded(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    static const struct cf_flight_load load = {.fn = load_text};
    struct tools *tools = arg;
    struct cf_value *value = NULL;
    enum cf_code code = cf_flight_do(ctx, tools->flight, "key", &load, NULL, &value, NULL, err);

    EXPECT(code != CF_OK || strcmp(cf_value_data(value), "text") == 0);
    cf_value_unref(value);
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_flight(struct tools *tools, struct cf_err *err)
{
    return run_tasks(tools, (cf_group_fn[TASKS]){want_loaded, want_loaded, want_loaded}, err);
}

static void drop_flight(struct tools *tools)
{
    if (tools->flight == NULL) {
        return;
    }
    cf_flight_stop(tools->flight);
    EXPECT(cf_flight_loads(tools->flight) == 0);
    cf_flight_free(tools->flight);
}

/* cache */

static enum cf_code make_cache(struct tools *tools, struct cf_err *err)
{
    return cf_cache_new(cf_ctx_background(), &(struct cf_cache_options){.shards = 1}, &tools->cache,
                        err);
}

static enum cf_code load_kept(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                              int64_t *ttl_ns __attribute__((unused)), struct cf_err *err)
{
    return load_text(ctx, arg, out, err);
}

static enum cf_code want_kept(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    static const struct cf_cache_load load = {.fn = load_kept};
    struct tools *tools = arg;
    struct cf_value *value = NULL;
    enum cf_code code = cf_cache_get(ctx, tools->cache, "key", &load, NULL, &value, NULL, err);

    EXPECT(code != CF_OK || strcmp(cf_value_data(value), "text") == 0);
    cf_value_unref(value);
    (void)atomic_fetch_add(&tools->done, code == CF_OK);
    return code;
}

static enum cf_code use_cache(struct tools *tools, struct cf_err *err)
{
    return run_tasks(tools, (cf_group_fn[TASKS]){want_kept, want_kept, want_kept}, err);
}

static void drop_cache(struct tools *tools)
{
    if (tools->cache == NULL) {
        return;
    }
    cf_cache_stop(tools->cache);
    cf_cache_free(tools->cache);
}

/* Runs */

static const struct scenario scenarios[] = {
    {"group", make_nothing, use_group, drop_nothing},
    {"sem", make_sem, use_sem, drop_sem},
    {"once", make_once, use_once, drop_nothing},
    {"limiter", make_limiter, use_limiter, drop_limiter},
    {"chan", make_chans, use_chans, drop_chans},
    {"select", make_chans, use_select, drop_chans},
    {"pipeline", make_nothing, use_pipeline, drop_nothing},
    {"flight", make_flight, use_flight, drop_flight},
    {"cache", make_cache, use_cache, drop_cache},
};

#define SCENARIOS ((int)(sizeof(scenarios) / sizeof(scenarios[0])))

/* While something fails. What was made stays; what was made in part does not. */
static void make_and_use(struct run *run, struct tools *tools, bool *out_made)
{
    const struct scenario *scenario = run->scenario;
    enum cf_code code;
    struct cf_err err;

    nth_arm(run->nth, run->sweep, run->n, run->mode);
    code = scenario->make(tools, &err);
    *out_made = code == CF_OK;
    if (code == CF_OK) {
        code = scenario->use(tools, &err);
    }
    (void)nth_off(run->nth);
    EXPECT(code == CF_OK || code == CF_ENOMEM || code == CF_EUNAVAIL); /* No thread. */
    if (!*out_made) {
        scenario->drop(tools);
        *tools = (struct tools){.ctx = tools->ctx};
    }
}

/* At the place: once while something fails, and once when nothing does. */
static void try_all(void *arg)
{
    struct run *run = arg;
    const struct scenario *scenario = run->scenario;
    struct tools tools = {0};
    bool made = false;
    struct cf_err err;

    while (!atomic_load(&run->go)) {
        (void)sched_yield();
    }
    EXPECT(cf_ctx_with_timeout(cf_ctx_background(), LOST_NS, &tools.ctx, &err) == CF_OK);
    if (run->mode != NTH_OFF) {
        make_and_use(run, &tools, &made);
    }
    EXPECT(made || scenario->make(&tools, &err) == CF_OK);
    EXPECT(scenario->use(&tools, &err) == CF_OK);
    scenario->drop(&tools);
    cf_ctx_free(tools.ctx);
}

static void visit(struct run *run)
{
    struct visit visit;

    atomic_store(&run->go, false);
    visit_start(&visit, run->place, try_all, run);
    atomic_store(&run->go, true);
    visit_join(&visit);
}

static void run_once(struct worker *worker, void *arg)
{
    struct run *run = arg;

    run->n = atomic_load(&worker->nth->n);
    (void)nth_off(worker->nth); /* Until it is at the place. */
    (void)alarm(LOST_SECONDS);
    visit(run);
    sweep_wait_freed(worker, run->blocks);
}

static void warm_up(struct worker *worker, struct run *run)
{
    run->mode = NTH_OFF;
    for (int i = 0; i < WARM_UPS; i++) {
        visit(run);
    }
    /* With that for timers. */
    run->blocks = sweep_blocks_at_rest(worker, run->place == PLACE_THREAD ? 2 : 1);
}

static void work(struct worker *worker, void *arg)
{
    const int *test = arg;
    struct run run = {
        .scenario = &scenarios[*test / PLACES], .place = *test % PLACES, .nth = worker->nth};

    worker->every_n = true;
    sweep_attach(worker, LOOPS, LOOP_DESCRIPTORS);
    warm_up(worker, &run);
    for (run.sweep = 0; run.sweep < 2; run.sweep++) {
        run.mode = run.sweep == 0 ? NTH_ONCE : NTH_FROM_NOW;
        sweep_run(worker, run.sweep, run.mode, run_once, &run);
    }
}

START_TEST(all_without_memory)
{
    const char *name = scenarios[_i / PLACES].name;
    struct worker test;
    int number = _i;

    sweep_init(&test);
    sweep_share(work, &number);
    sweep_print(0, name, _i % PLACES == PLACE_FIBER ? "on fibers, once" : "on threads, once");
    sweep_print(1, name, "from then on");
}
END_TEST

Suite *suite_sync(void)
{
    Suite *suite = suite_create("sync");
    TCase *tc = tcase_create("sync");

    tcase_add_loop_test(tc, all_without_memory, 0, SCENARIOS * PLACES);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
