/* SPDX-License-Identifier: MIT */
/* See recovery.h. */
#include "recovery.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "pgview.h"

/* Constants */

#define IN_A_ROW 100

/* Looks at the connections, 50 ms apart, until it is clear that there is none for control. Not a
 * time: on a machine that stands still none is made, either. */
#define LOOKS_FOR_CONTROL 20

/* Fibers keep their stacks, libpq its buffers, malloc its arenas:
 * a peak leaves that much behind. */
#define RSS_MORE (8U << 20)

/* Threads of the lanes (four that cancel, two that resolve), made when first needed, stay. */
#define THREADS_MORE 6

static const char *const targets[] = {"/v1/dashboard?user_id=1", "/v1/users/1"};

/* Since the baseline was taken: replies whose time was counted, and how many of them were late. */
static size_t n_timed;
static size_t n_late;
static int64_t latest_ns;

/* Internal helpers */

/* Something to cancel. */
static void abandon_one(struct service *service)
{
    int fd = client_open(service->api_port);

    client_request(fd, "GET", "/v1/sleep?seconds=1&timeout=2s", NULL);
    pause_ms(2);
    (void)close(fd);
}

/* Half of them in vain, so that cancels are warm too. */
static void warm_up(struct service *service)
{
    for (int i = 0; i < IN_A_ROW; i++) {
        ck_assert_int_eq(client_get(service->api_port, targets[i % 2], NULL)->status, 200);
    }
    for (int i = 0; i < 20; i++) {
        abandon_one(service);
    }
}

/* The number of descriptors when nobody opens or closes one: the same for a while. */
static size_t settled_fds(struct service *service)
{
    size_t fds = service_fds(service);

    for (int same = 0; same < 10;) {
        size_t now = service_fds(service);

        same = now == fds ? same + 1 : 0;
        fds = now;
        pause_ms(10);
    }
    return fds;
}

/* To recover since the fault was taken off. */
static bool is_time_left(int64_t off_ns)
{
    return cf_now_ns() - off_ns < bound(RECOVERY_NS);
}

/* Returns when the first of a hundred in a row was asked for. */
static int64_t wait_served(const struct baseline *baseline, int64_t off_ns)
{
    uint16_t port = baseline->service->api_port;
    int64_t since_ns = cf_now_ns();

    for (int n = 0; n < IN_A_ROW;) {
        struct reply *reply = client_get(port, targets[n % 2], "Request-Timeout-Ms: 1000\r\n");

        n++;
        if (reply->status != 200) {
            ck_assert_msg(is_time_left(off_ns), "not served in time: %d %s", reply->status,
                          reply->body);
            pause_ms(5);
            since_ns = cf_now_ns();
            n = 0;
        }
    }
    ck_assert_msg(is_time_left(off_ns), "a hundred in a row came too late");
    return since_ns;
}

/* Life cycle */

void baseline_take(struct baseline *out, struct service *service, const char *url)
{
    int64_t since_ns = cf_now_ns();
    int looks = LOOKS_FOR_CONTROL; /* There is none with CURFEW_CANCEL=pqcancel. */
    json_t *line = service_find_line(service, "msg", "listening", CF_SECOND);
    int pool = (int)json_integer_value(json_object_get(line, "pool"));

    json_decref(line);
    *out = (struct baseline){.service = service, .url = url};
    warm_up(service);
    for (;;) {
        out->backends = count_backends(url);
        looks -= out->backends == pool;
        if (out->backends == pool + 1 || looks == 0) {
            break;
        }
        ck_assert_msg(is_time_left(since_ns), "%d of %d connections", out->backends, pool);
        pause_ms(50);
    }
    out->fds = settled_fds(service);
    out->threads = service_threads(service);
    out->rss_bytes = service_rss_bytes(service);
    n_timed = 0;
    n_late = 0;
    latest_ns = 0;
}

/* Operations */

/* One request follows another, so that a machine which stands still makes one of them late. By a
 * second it is a loop that was blocked. */
static void expect_few_late(void)
{
    ck_assert_msg(n_late <= 1 + n_timed / 100 && latest_ns <= bound(CF_SECOND),
                  "%zu of %zu late, one by %.0f ms", n_late, n_timed, (double)latest_ns / 1e6);
    if (n_late > 0) {
        (void)fprintf(stderr, "  fault %zu of %zu late, one by %.0f ms\n", n_late, n_timed,
                      (double)latest_ns / 1e6);
    }
    n_timed = 0;
    n_late = 0;
    latest_ns = 0;
}

void expect_recovery(const struct baseline *baseline, const char *what)
{
    struct service *service = baseline->service;
    int64_t off_ns = cf_now_ns();
    int64_t served_ns;
    size_t rss_bytes;

    ck_assert(service_runs(service));
    expect_few_late();
    served_ns = wait_served(baseline, off_ns);
    while (service_fds(service) != baseline->fds ||
           count_backends(baseline->url) != baseline->backends) {
        ck_assert_msg(is_time_left(off_ns), "%zu descriptors, not %zu; %d backends, not %d",
                      service_fds(service), baseline->fds, count_backends(baseline->url),
                      baseline->backends);
        abandon_one(service); /* A lost control connection is made anew when it is wanted. */
        pause_ms(50);
    }
    ck_assert_uint_le(service_threads(service), baseline->threads + THREADS_MORE);
    rss_bytes = service_rss_bytes(service);
    (void)fprintf(stderr, "  fault %s: served after %.0f ms, whole after %.0f ms, %+.1f MiB\n",
                  what, (double)(served_ns - off_ns) / 1e6, (double)(cf_now_ns() - off_ns) / 1e6,
                  ((double)rss_bytes - (double)baseline->rss_bytes) / (1 << 20));
    ck_assert_uint_le(rss_bytes, baseline->rss_bytes + (size_t)bound_strictly(RSS_MORE));
}

/* Helpers that the faults share */

struct asked ask(const struct service *service, const char *target)
{
    struct asked asked = {client_open(service->api_port), cf_now_ns()};

    client_request(asked.fd, "GET", target, NULL);
    return asked;
}

struct reply *answer(struct asked asked)
{
    struct reply *reply = client_recv(asked.fd, "GET");

    reply->sent_ns = asked.sent_ns;
    (void)close(asked.fd);
    return reply;
}

void url_through(char *out, size_t size, const struct cluster *cluster, uint16_t port)
{
    int head = (int)(strrchr(cluster->url, ':') - cluster->url);

    (void)snprintf(out, size, "%.*s:%u/postgres", head, cluster->url,
                   port != 0 ? port : cluster->port);
}

int count_backends(const char *url)
{
    PGconn *pg = pgview_open(url);
    int n =
        (int)pgview_i64(pg,
                        "select count(*) from pg_stat_activity where application_name = 'curfewd'"
                        " and backend_type = 'client backend'",
                        NULL);

    PQfinish(pg);
    return n;
}

int wait_backend(const char *url, const char *pattern)
{
    PGconn *pg = pgview_open(url);
    int pid;

    ck_assert_int_ge(pgview_wait_active(pg, pattern, 1, 3 * CF_SECOND), 0);
    pid = (int)pgview_i64(pg,
                          "select pid from pg_stat_activity where state = 'active' and"
                          " query ~ $1 and pid <> pg_backend_pid()",
                          (const char *[]){pattern, NULL});
    PQfinish(pg);
    return pid;
}

static void expect_unserved(const struct reply *reply)
{
    ck_assert_msg(reply->status == 503 || reply->status == 504, "%d %s", reply->status,
                  reply->body);
}

static struct reply *ask_whether_alive(struct service *service, uint16_t port)
{
    struct reply *reply = client_get(port, "/livez", NULL);

    ck_assert(service_runs(service));
    ck_assert_int_eq(reply->status, 200);
    return reply;
}

void expect_refused(const struct reply *reply, int64_t timeout_ns)
{
    expect_unserved(reply);
    ck_assert_msg(reply->done_ns - reply->sent_ns <= timeout_ns + bound(LATE_NS), "took %.0f ms",
                  (double)(reply->done_ns - reply->sent_ns) / 1e6);
}

void expect_alive(struct service *service)
{
    const uint16_t ports[] = {service->api_port, service->admin_port};

    for (size_t i = 0; i < 2; i++) {
        struct reply *reply = ask_whether_alive(service, ports[i]);

        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(LATE_NS));
    }
}

void count_time(const struct reply *reply, int64_t timeout_ns)
{
    int64_t late_ns = reply->done_ns - reply->sent_ns - timeout_ns;

    n_timed++;
    n_late += late_ns > bound(LATE_NS);
    latest_ns = late_ns > latest_ns ? late_ns : latest_ns;
}

void count_refused(const struct reply *reply, int64_t timeout_ns)
{
    expect_unserved(reply);
    count_time(reply, timeout_ns);
}

void count_alive(struct service *service)
{
    const uint16_t ports[] = {service->api_port, service->admin_port};

    for (size_t i = 0; i < 2; i++) {
        count_time(ask_whether_alive(service, ports[i]), 0);
    }
}
