/* SPDX-License-Identifier: MIT */
/* The sweep: see subject.h. */
#include "subject.h"

#include <check.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "pgview.h"

/* How often in a row nothing may have failed before there is nothing left to fail. What the process
 * does besides, its housekeeping, makes the number of allocations vary. */
#define CLEAN_RUNS 3

/* How soon everything is as it was. Attempts to connect wait for up to a second after a few that
 * failed. */
#define REST_NS (5 * CF_SECOND)

#define LATE_NS CF_SECOND

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
    struct reply *reply = client_get(subject->service->api_port, SUBJECT_DASHBOARD, NULL);

    ck_assert_msg(reply->status == 200, "after %ld, %s: %d %s", subject->n, subject->nth->where,
                  reply->status, reply->body);
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
                      "after %ld, %s: %d sessions, not %d; %d descriptors, not %d", subject->n,
                      subject->nth->where, sessions, subject->sessions, descriptors,
                      subject->descriptors);
        pause_ms(1);
    }
}

/* Wait until it has all its sessions, and find out how many descriptors it has then: the number has
 * not changed for a while. */
static void learn_rest(struct subject *subject)
{
    int64_t until_ns = cf_now_ns() + bound(REST_NS);
    int64_t since_ns = cf_now_ns();

    while (cf_now_ns() - since_ns < CF_SECOND / 10) {
        int descriptors = count_descriptors(subject->service->pid);

        ck_assert_msg(cf_now_ns() < until_ns, "%d sessions, not %d", subject_sessions(subject),
                      subject->sessions);
        if (subject_sessions(subject) != subject->sessions || descriptors != subject->descriptors) {
            subject->descriptors = descriptors;
            since_ns = cf_now_ns();
        }
        pause_ms(1);
    }
}

static bool run_once(struct subject *subject, enum nth_mode mode, subject_fn scenario)
{
    bool struck;

    nth_arm(subject->nth, subject->n, mode);
    scenario(subject);
    struck = nth_off(subject->nth);
    ck_assert_msg(service_runs(subject->service), "after %ld, %s: ended with %d", subject->n,
                  subject->nth->where, subject->service->status);
    expect_ok(subject);
    wait_rest(subject);
    client_free_all();
    return struck;
}

/* Start it, wait until it is at rest, and have it do all once. */
static void start(struct subject *subject, subject_fn scenario)
{
    subject->service = service_start_ready(subject->url, subject->env);
    ck_assert_int_eq(atomic_load(&subject->nth->loaded), 1);
    learn_rest(subject);
    scenario(subject);
    expect_ok(subject);
    learn_rest(subject);
}

/* Returns how many blocks it left. */
static long stop(struct subject *subject)
{
    service_signal(subject->service, SIGTERM);
    ck_assert_int_eq(service_wait(subject->service, 5 * CF_SECOND), 0);
    return atomic_load(&subject->nth->live);
}

static void sweep(struct subject *subject, enum nth_mode mode, subject_fn scenario)
{
    int clean = 0;

    for (subject->n = 1; clean < CLEAN_RUNS; subject->n += nth_step(subject->nth, false)) {
        clean = run_once(subject, mode, scenario) ? 0 : clean + 1;
    }
    ck_assert_int_gt(subject->n, CLEAN_RUNS + 1); /* Something did fail. */
}

/* Life cycle */

void subject_init(struct subject *subject, const char *schema, int pool, const char *cancel)
{
    size_t size;

    *subject = (struct subject){.schema = schema};
    subject->sessions = pool + (strcmp(cancel, "control") == 0);
    pgview_make_schema(schema, subject->url, sizeof(subject->url));
    subject->pg = pgview_open(subject->url);
    subject->locker = pgview_open(subject->url);
    pgview_exec(subject->pg,
                "insert into users (email, name) values ('a@example.org', 'A');"
                "insert into orders (user_id, status, total_cents) values (1, 'paid', 5)");
    size = strlen(subject->url);
    (void)snprintf(subject->url + size, sizeof(subject->url) - size, "%sapplication_name=%s",
                   strstr(subject->url, "://") != NULL ? "&" : " ", schema);
    subject->nth = nth_new(subject->env);
    subject->env[NTH_SETTINGS] = "CURFEW_LOOPS=1";
    subject->env[NTH_SETTINGS + 1] = subject->pool_setting;
    subject->env[NTH_SETTINGS + 2] = subject->cancel_setting;
    (void)snprintf(subject->pool_setting, sizeof(subject->pool_setting), "CURFEW_POOL=%d", pool);
    (void)snprintf(subject->cancel_setting, sizeof(subject->cancel_setting), "CURFEW_CANCEL=%s",
                   cancel);
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

void subject_examine(struct subject *subject, enum nth_mode mode, subject_fn scenario)
{
    long unharmed;
    long left;

    start(subject, scenario);
    unharmed = stop(subject);
    atomic_store(&subject->nth->live, 0);
    start(subject, scenario);
    sweep(subject, mode, scenario);
    left = stop(subject);
    ck_assert_msg(left == unharmed, "%ld blocks are left, of one unharmed %ld", left, unharmed);
}

/* Queries */

int subject_sessions(const struct subject *subject)
{
    return (int)pgview_i64(subject->pg,
                           "select count(*) from pg_stat_activity where application_name = $1"
                           " and state in ('idle', 'active') and query <> ''",
                           (const char *[]){subject->schema, NULL});
}

void subject_expect_answer(const struct subject *subject, const struct reply *reply,
                           int64_t timeout_ns)
{
    int64_t took_ns = reply->done_ns - reply->sent_ns;
    int status = reply->status;

    ck_assert_msg(status == 200 || status == 503 || status == 504 || status == 0, "%ld, %s: %d %s",
                  subject->n, subject->nth->where, status, reply->body);
    ck_assert_msg(status == 0 || reply->json != NULL, "%ld, %s: %s", subject->n,
                  subject->nth->where, reply->body);
    ck_assert_msg(took_ns < bound(timeout_ns + LATE_NS), "%ld, %s: after %.1f ms", subject->n,
                  subject->nth->where, (double)took_ns / 1e6);
}
