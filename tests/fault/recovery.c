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

/* Fibers keep their stacks, libpq its buffers, malloc its arenas:
 * a peak leaves that much behind. */
#define RSS_MORE (8U << 20)

/* Threads of the lanes (four that cancel, two that resolve), made when first needed, stay. */
#define THREADS_MORE 6

static const char *const targets[] = {"/v1/dashboard?user_id=1", "/v1/users/1"};

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

/* Returns when the first of a hundred in a row was asked for. */
static int64_t wait_served(const struct baseline *baseline, int64_t until_ns)
{
    uint16_t port = baseline->service->api_port;
    int64_t since_ns = cf_now_ns();

    for (int n = 0; n < IN_A_ROW;) {
        struct reply *reply = client_get(port, targets[n % 2], "Request-Timeout-Ms: 1000\r\n");

        n++;
        if (reply->status != 200) {
            ck_assert_msg(cf_now_ns() < until_ns, "not served in time: %d %s", reply->status,
                          reply->body);
            pause_ms(5);
            since_ns = cf_now_ns();
            n = 0;
        }
    }
    ck_assert_msg(cf_now_ns() < until_ns, "a hundred in a row came too late");
    return since_ns;
}

/* Life cycle */

void baseline_take(struct baseline *out, struct service *service, const char *url)
{
    int64_t until_ns = cf_now_ns() + bound(RECOVERY_NS);
    int64_t control_ns = cf_now_ns() + CF_SECOND; /* There is none with CURFEW_CANCEL=pqcancel. */
    json_t *line = service_find_line(service, "msg", "listening", CF_SECOND);
    int pool = (int)json_integer_value(json_object_get(line, "pool"));

    json_decref(line);
    *out = (struct baseline){.service = service, .url = url};
    warm_up(service);
    for (;;) {
        out->backends = count_backends(url);
        if (out->backends == pool + 1 || (out->backends == pool && cf_now_ns() > control_ns)) {
            break;
        }
        ck_assert_msg(cf_now_ns() < until_ns, "%d of %d connections", out->backends, pool);
        pause_ms(50);
    }
    out->fds = settled_fds(service);
    out->threads = service_threads(service);
    out->rss_bytes = service_rss_bytes(service);
}

/* Operations */

void expect_recovery(const struct baseline *baseline, const char *what)
{
    struct service *service = baseline->service;
    int64_t off_ns = cf_now_ns();
    int64_t until_ns = off_ns + bound(RECOVERY_NS);
    int64_t served_ns;
    size_t rss_bytes;

    ck_assert(service_runs(service));
    served_ns = wait_served(baseline, until_ns);
    while (service_fds(service) != baseline->fds ||
           count_backends(baseline->url) != baseline->backends) {
        ck_assert_msg(cf_now_ns() < until_ns, "%zu descriptors, not %zu; %d backends, not %d",
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
    ck_assert_uint_le(rss_bytes, baseline->rss_bytes + (size_t)bound(RSS_MORE));
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

void expect_refused(const struct reply *reply, int64_t timeout_ns)
{
    ck_assert_msg(reply->status == 503 || reply->status == 504, "%d %s", reply->status,
                  reply->body);
    ck_assert_msg(reply->done_ns - reply->sent_ns <= timeout_ns + bound(LATE_NS), "took %.0f ms",
                  (double)(reply->done_ns - reply->sent_ns) / 1e6);
}

void expect_alive(struct service *service)
{
    const uint16_t ports[] = {service->api_port, service->admin_port};

    ck_assert(service_runs(service));
    for (size_t i = 0; i < 2; i++) {
        struct reply *reply = client_get(ports[i], "/livez", NULL);

        ck_assert_int_eq(reply->status, 200);
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(LATE_NS));
    }
}
