/* SPDX-License-Identifier: MIT */
/* The service that is examined: see subject.h. */
#include "subject.h"

#include <check.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "login.h"
#include "pgview.h"

/* How soon everything is as it was. Attempts to connect wait for up to a second after a few that
 * failed. */
#define REST_NS (20 * CF_SECOND)

#define STOP_NS (20 * CF_SECOND)

/* How often in a row it must look the same to be at rest. */
#define SAME_LOOKS 20

/* What an answer may be late by: a cancel that was lost would cost two seconds. A machine that
 * stands still makes an answer late, too, but not so often. */
#define LATE_NS CF_SECOND
#define LATE_MAX 3

/* Until the same allocation fails again: the n-th may be another by then, as the sections of a
 * dashboard load side by side. */
#define TRIES_MAX 20

/* What a worker needs. */
struct task {
    const struct examination *of;
    long unharmed; /* Blocks left of a service in which nothing has failed. */
};

/* One run of a sweep. */
struct run {
    struct subject *subject;
    subject_fn scenario;
    int sweep;
    enum nth_mode mode;
};

/* Internal helpers */

static int count_descriptors(pid_t pid)
{
    char path[64];
    int count = 0;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

static void expect_ok(const struct subject *subject)
{
    struct reply *reply =
        client_get(subject->service->api_port, SUBJECT_DASHBOARD SUBJECT_PATIENCE, NULL);

    ck_assert_msg(reply->status == 200, "after %s: %d %s", subject_say(subject), reply->status,
                  reply->body);
}

/* Wait until there are as many sessions and descriptors as there were. */
static void wait_rest(struct subject *subject)
{
    int64_t until_ns = cf_now_ns() + bound(REST_NS);

    for (;;) {
        int sessions = subject_sessions(subject);
        int descriptors = count_descriptors(subject->service->pid);

        if (sessions == subject->sessions && descriptors == subject->descriptors) {
            return;
        }
        ck_assert_msg(cf_now_ns() < until_ns,
                      "after %s: %d sessions, not %d; %d descriptors, not %d", subject_say(subject),
                      sessions, subject->sessions, descriptors, subject->descriptors);
        pause_ms(2);
    }
}

/* Wait until it has all its sessions, and find out how many descriptors it has then: the number has
 * not changed for a while, however slow it is to look. */
static void learn_rest(struct subject *subject)
{
    int64_t until_ns = cf_now_ns() + bound(REST_NS);

    for (int same = 0; same < SAME_LOOKS; same++) {
        int descriptors = count_descriptors(subject->service->pid);
        int sessions = subject_sessions(subject);

        ck_assert_msg(cf_now_ns() < until_ns, "%d sessions, not %d", sessions, subject->sessions);
        if (sessions != subject->sessions || descriptors != subject->descriptors) {
            subject->descriptors = descriptors;
            same = 0;
        }
        pause_ms(5);
    }
}

static void try_once(const struct run *run)
{
    struct subject *subject = run->subject;

    subject->late_ns = 0;
    run->scenario(subject);
    (void)nth_off(subject->nth);
    ck_assert_msg(service_runs(subject->service), "after %s: ended with %d", subject_say(subject),
                  subject->service->status);
    expect_ok(subject);
    wait_rest(subject);
    client_free_all();
}

/* The n of a further try: about that of the first. */
static long near_to(long n, int tries)
{
    static const long steps[] = {0, 1, -1, 2, -2};
    long other = n + steps[tries % 5];

    return other > 0 ? other : n;
}

/* Once; if it was late, until the same has failed again and it was not. */
static void run_once(struct worker *worker, void *arg)
{
    const struct run *run = arg;
    const struct nth *nth = worker->nth;
    char where[sizeof(nth->where)];
    int late = 0;
    long n;

    try_once(run);
    n = nth->first;
    memcpy(where, nth->where, sizeof(where));
    for (int tries = 1; run->subject->late_ns > 0 || strcmp(where, nth->where) != 0; tries++) {
        late += run->subject->late_ns > 0;
        ck_assert_msg(late < LATE_MAX && tries < TRIES_MAX, "%ld, %s: %d of %d were late", n, where,
                      late, tries);
        nth_arm(worker->nth, run->sweep, near_to(n, tries), n > 0 ? run->mode : NTH_OFF);
        try_once(run);
    }
}

/* With all the memory it needs. */
static void run_unharmed(struct subject *subject, subject_fn scenario)
{
    for (int late = 0; late == 0 || subject->late_ns > 0; late++) {
        ck_assert_msg(late < LATE_MAX, "late with all its memory");
        subject->late_ns = 0;
        scenario(subject);
    }
}

/* Start it, wait until it is at rest, and have it do all once. */
static void start(struct subject *subject, const struct examination *of)
{
    atomic_store(&subject->nth->live, 0);
    subject->service = service_start_ready(subject->url, subject->env);
    ck_assert_int_eq(atomic_load(&subject->nth->loaded), 1);
    learn_rest(subject);
    for (int i = 0; i < SCENARIOS_MAX && of->scenarios[i].run != NULL; i++) {
        run_unharmed(subject, of->scenarios[i].run);
    }
    expect_ok(subject);
    learn_rest(subject);
}

/* Returns how many blocks it left. */
static long stop(struct subject *subject)
{
    service_signal(subject->service, SIGTERM);
    ck_assert_int_eq(service_wait(subject->service, STOP_NS), 0);
    return atomic_load(&subject->nth->live);
}

/* Which sweep it is that examines a scenario. */
static int sweep_of(int scenario, enum nth_mode mode)
{
    return 2 * scenario + (mode == NTH_FROM_NOW);
}

/* The work of one worker. */
static void examine(struct worker *worker, void *arg)
{
    const struct task *task = arg;
    struct subject subject;
    long left;

    worker->every_n = task->of->every_n;
    subject_init(&subject, task->of, worker);
    start(&subject, task->of);
    for (int i = 0; i < SCENARIOS_MAX && task->of->scenarios[i].run != NULL; i++) {
        for (enum nth_mode mode = NTH_ONCE; mode <= NTH_FROM_NOW; mode++) {
            struct run run = {&subject, task->of->scenarios[i].run, sweep_of(i, mode), mode};

            sweep_run(worker, run.sweep, mode, run_once, &run);
        }
    }
    left = stop(&subject);
    ck_assert_msg(left == task->unharmed, "%ld blocks are left, of one unharmed %ld", left,
                  task->unharmed);
    subject_fini(&subject);
}

/* Life cycle */

/* Both have nine letters. */
static void use_name(char *url)
{
    char *address = strstr(url, "127.0.0.1");

    ck_assert_ptr_nonnull(address);
    memcpy(address, "localhost", strlen("localhost"));
}

void subject_init(struct subject *subject, const struct examination *of,
                  const struct worker *worker)
{
    size_t size;

    *subject = (struct subject){.nth = worker->nth,
                                .env = {worker->env[0], worker->env[1], "CURFEW_LOOPS=1"},
                                .sessions = of->pool + (strcmp(of->cancel, "control") == 0)};
    (void)snprintf(subject->schema, sizeof(subject->schema), "%s_%d", of->schema, worker->number);
    pgview_make_schema(subject->schema, subject->url, sizeof(subject->url));
    subject->pg = pgview_open(subject->url);
    subject->locker = pgview_open(subject->url);
    pgview_exec(subject->pg,
                "insert into users (email, name) values ('a@example.org', 'A');"
                "insert into orders (user_id, status, total_cents) values (1, 'paid', 5)");
    size = strlen(subject->url);
    (void)snprintf(subject->url + size, sizeof(subject->url) - size, "%sapplication_name=%s",
                   strstr(subject->url, "://") != NULL ? "&" : " ", subject->schema);
    if (of->by_name) {
        use_name(subject->url);
    }
    subject->env[NTH_SETTINGS + 1] = subject->pool_setting;
    subject->env[NTH_SETTINGS + 2] = subject->cancel_setting;
    (void)snprintf(subject->pool_setting, sizeof(subject->pool_setting), "CURFEW_POOL=%d",
                   of->pool);
    (void)snprintf(subject->cancel_setting, sizeof(subject->cancel_setting), "CURFEW_CANCEL=%s",
                   of->cancel);
}

void subject_fini(struct subject *subject)
{
    service_stop_all();
    client_free_all();
    PQfinish(subject->locker);
    PQfinish(subject->pg);
    pgview_drop_schema(subject->schema);
}

/* Operations */

void subject_examine(const struct examination *of)
{
    struct task task = {.of = of};
    struct subject subject;
    struct worker test;

    login_make();
    sweep_init(&test);
    subject_init(&subject, of, &test);
    start(&subject, of);
    task.unharmed = stop(&subject);
    subject_fini(&subject);
    sweep_share(examine, &task);
    login_drop();
    for (int i = 0; i < SCENARIOS_MAX && of->scenarios[i].run != NULL; i++) {
        sweep_print(sweep_of(i, NTH_ONCE), of->scenarios[i].name, "once");
        sweep_print(sweep_of(i, NTH_FROM_NOW), of->scenarios[i].name, "from then on");
    }
}

/* Queries */

int subject_sessions(const struct subject *subject)
{
    return (int)pgview_i64(subject->pg,
                           "select count(*) from pg_stat_activity where application_name = $1"
                           " and state in ('idle', 'active') and query <> ''",
                           (const char *[]){subject->schema, NULL});
}

int subject_locked(const struct subject *subject)
{
    return (int)pgview_i64(subject->pg,
                           "select count(*) from pg_stat_activity where application_name = $1"
                           " and wait_event_type = 'Lock'",
                           (const char *[]){subject->schema, NULL});
}

const char *subject_say(const struct subject *subject)
{
    return nth_say(subject->nth);
}

void subject_expect_answer(struct subject *subject, const struct reply *reply, int64_t timeout_ns)
{
    int64_t took_ns = reply->done_ns - reply->sent_ns;
    int status = reply->status;

    ck_assert_msg(status == 200 || status == 503 || status == 504 || status == 0, "%s: %d %s",
                  subject_say(subject), status, reply->body);
    ck_assert_msg(status == 0 || reply->json != NULL, "%s: %s", subject_say(subject), reply->body);
    if (took_ns >= bound(timeout_ns + LATE_NS)) {
        subject->late_ns = took_ns - timeout_ns;
    }
}
