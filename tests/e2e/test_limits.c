/* SPDX-License-Identifier: MIT */
/* The service among clients that are too many, too slow, or gone:
 * nothing of them stays, and others do not notice. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"
#include "service.h"

#define N(table) (sizeof(table) / sizeof((table)[0]))

#define MANY 1000
#define SLEEPING "pg_sleep"

/* Fixture */

static PGconn *pg;

static void setup(void)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    pg = pgview_open(NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* Helpers */

static bool is_long(void)
{
    return getenv("CF_TEST_LONG") != NULL;
}

static size_t count_descriptors(const struct service *service)
{
    char path[64];
    DIR *dir;
    size_t n = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)service->pid);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    (void)closedir(dir);
    return n;
}

/* Wait until the service has only the descriptors it had. */
static void expect_no_leak(const struct service *service, size_t before)
{
    int64_t until_ns = cf_now_ns() + bound(5 * CF_SECOND);

    while (count_descriptors(service) > before) {
        ck_assert_msg(cf_now_ns() < until_ns, "%zu descriptors, before %zu",
                      count_descriptors(service), before);
        pause_ms(5);
    }
}

/* Wait until its pool, and the connection that cancels, are there: those are descriptors too. */
static void wait_full(struct service *service, size_t pool)
{
    int64_t until_ns = cf_now_ns() + bound(10 * CF_SECOND);
    size_t n = 0;

    while (n < pool) {
        char backends[1024];

        service_backends(service, backends, sizeof(backends));
        n = 1;
        for (const char *c = backends; *c != '\0'; c++) {
            n += *c == ',';
        }
        ck_assert_msg(cf_now_ns() < until_ns, "%zu backends", n);
        pause_ms(5);
    }
    /* That which cancels is made when it is needed. */
    ck_assert_int_eq(
        client_get(service->api_port, "/v1/sleep?seconds=9&timeout=50ms", NULL)->status, 504);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, CF_SECOND), 0);
}

/* The p-th permille of what `n` requests take, one after the other,
 * each on a connection of its own. */
static int64_t latency(struct service *service, size_t n, const char *target, unsigned p)
{
    static int64_t took_ns[2000];

    ck_assert_uint_le(n, N(took_ns));
    for (size_t i = 0; i < n; i++) {
        struct reply *reply = client_get(service->api_port, target, NULL);

        ck_assert_int_eq(reply->status, 200);
        took_ns[i] = reply->done_ns - reply->sent_ns;
    }
    client_free_all();
    return permille(took_ns, n, p);
}

static void let_go(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

/* The same, of the best of three times: whatever else the machine does only makes it worse. */
static int64_t calm_latency(struct service *service, size_t n, const char *target, unsigned p)
{
    int64_t best_ns = INT64_MAX;

    for (int i = 0; i < 3; i++) {
        int64_t took_ns = latency(service, n, target, p);

        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    return best_ns;
}

/* gone: half a request, and away */

static const char *const halves[] = {
    "G",
    "GET /v1/users/1 HT",
    "GET /v1/users/1 HTTP/1.1\r\nHost: a\r\nX-Ha",
    "POST /v1/users/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf a body",
};

static void expect_halves_leave_nothing(void (*leave)(int fd))
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_POOL=4", NULL});
    size_t before;

    wait_full(service, 4);
    service_expect_normal(service);
    before = count_descriptors(service);
    for (size_t i = 0; i < MANY; i++) {
        int fd = client_open(service->api_port);

        client_send(fd, halves[i % N(halves)]);
        leave(fd);
    }
    expect_no_leak(service, before);
    service_expect_normal(service);
}

static void leave_by_fin(int fd)
{
    (void)close(fd);
}

START_TEST(halves_with_fin_leave_nothing)
{
    expect_halves_leave_nothing(leave_by_fin);
}
END_TEST

START_TEST(halves_with_rst_leave_nothing)
{
    expect_halves_leave_nothing(client_reset);
}
END_TEST

/* In mid-reply: as soon as its first byte is there, a reply that does not fit into the socket. */
START_TEST(resets_in_mid_reply_leave_nothing)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_POOL=4", NULL});
    size_t before;
    size_t rss;
    char first;

    wait_full(service, 4);
    service_expect_normal(service);
    before = count_descriptors(service);
    rss = service_rss_bytes(service);
    for (size_t i = 0; i < MANY; i++) {
        int fd = client_open(service->api_port);
        int small = 1024;

        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        client_request(fd, "GET", "/v1/users?limit=200", NULL);
        ck_assert_int_eq(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000), 1);
        ck_assert_msg(recv(fd, &first, 1, 0) == 1, "reply %zu: %s", i, strerror(errno));
        client_reset(fd);
    }
    expect_no_leak(service, before);
    service_expect_normal(service);
    ck_assert_int_ge(pgview_wait_active(pg, "FROM users", 0, CF_SECOND), 0);
    ck_assert_int_le((int64_t)service_rss_bytes(service),
                     (int64_t)rss + bound_strictly(16 * 1024 * 1024));
}
END_TEST

/* Two hundred fan-outs of ten seconds, each left after fifty milliseconds. */
START_TEST(fan_outs_that_are_left_leave_nothing)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_POOL=16", NULL});
    PGconn *locker = pgview_open(NULL);
    size_t rounds = is_long() ? 200 : 40;
    int64_t took_ns[200];
    size_t before;

    wait_full(service, 16);
    service_expect_normal(service);
    before = count_descriptors(service);
    pgview_exec(locker, "BEGIN; LOCK TABLE users, orders IN ACCESS EXCLUSIVE MODE");
    for (size_t i = 0; i < rounds; i++) {
        int fd = client_open(service->api_port);

        client_request(fd, "GET", "/v1/dashboard?user_id=42&timeout=10s", NULL);
        pause_ms(50);
        (void)close(fd);
        took_ns[i] = pgview_wait_active(pg, "FROM (users|orders)", 0, 2 * CF_SECOND);
        ck_assert_int_ge(took_ns[i], 0);
    }
    ck_assert_int_le(permille(took_ns, rounds, 950), bound(100 * CF_MS));
    PQfinish(locker);
    expect_no_leak(service, before);
    service_expect_normal(service);
}
END_TEST

/* slow: a thousand at once */

enum slowness {
    SLOW_HEAD,
    SLOW_BODY,
    SLOW_READER
};

static const char *const names[] = {"heads", "bodies", "readers"};

static const char *const beginnings[] = {
    "GET /v1/users/1 HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "POST /v1/users/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n",
    NULL, /* Requests whose replies are more than the other side's socket takes. */
};

static void begin_slow(int fd, enum slowness how)
{
    int small = 1024;

    if (beginnings[how] != NULL) {
        client_send(fd, beginnings[how]);
        return;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    for (int i = 0; i < 3; i++) {
        client_request(fd, "GET", "/v1/users?limit=200", NULL);
    }
}

/* A byte more, or less. False: it was ended, with 408 where there was something to be said. */
static bool go_on_slowly(int fd, enum slowness how)
{
    char text[16];
    ssize_t n;

    if (how == SLOW_READER) {
        (void)recv(fd, text, 4, MSG_DONTWAIT);
        return true; /* That it was reset is behind all that it has not read, if it learns of it. */
    }
    n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) {
        (void)send(fd, "x", 1, MSG_NOSIGNAL);
        return true;
    }
    ck_assert_msg(n == sizeof(text) && memcmp(text, "HTTP/1.1 408 Req", 16) == 0, "%zd %s %.*s", n,
                  n < 0 ? strerror(errno) : "", n > 0 ? (int)n : 0, text);
    return false;
}

/* A child that keeps `n` such clients, a byte each twice a second, until all of them were ended;
 * then it exits with 0. It has begun them all when this returns. */
static pid_t start_slow(struct service *service, enum slowness how, size_t n)
{
    static int fds[MANY];
    int ready[2];
    char byte;
    pid_t pid;

    ck_assert_int_eq(pipe(ready), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        size_t left = n;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (size_t i = 0; i < n; i++) {
            fds[i] = client_open(service->api_port);
            begin_slow(fds[i], how);
        }
        (void)!write(ready[1], "x", 1);
        for (size_t turn = 0; left > 0; turn++) {
            pause_ms(50);
            for (size_t i = turn % 10; i < n; i += 10) {
                if (fds[i] >= 0 && !go_on_slowly(fds[i], how)) {
                    (void)close(fds[i]);
                    fds[i] = -1;
                    left--;
                }
            }
        }
        _exit(0);
    }
    (void)close(ready[1]);
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

START_TEST(thousand_slow_clients_are_ended_and_others_served)
{
    struct service *service = service_start_ready(
        NULL, (const char *[]){"CURFEW_HEAD_TIMEOUT=3s", "CURFEW_BODY_TIMEOUT=3s",
                               "CURFEW_SEND_TIMEOUT=3s", "CURFEW_POOL=4", NULL});
    int64_t calm_ns;
    int64_t slow_ns;
    int64_t since_ns;
    size_t before;
    int status;
    pid_t pid;

    wait_full(service, 4);
    service_expect_normal(service);
    before = count_descriptors(service);
    calm_ns = calm_latency(service, 500, "/v1/users/1", 990);
    since_ns = cf_now_ns();
    pid = start_slow(service, (enum slowness)_i, MANY);
    for (int n = 0; n < 20; n++) { /* Behind the readers' own, on either loop: so these are made. */
        ck_assert_int_eq(client_get(service->api_port, "/v1/users/1", NULL)->status, 200);
    }
    slow_ns = calm_latency(service, 500, "/v1/users/1", 990);
    expect_no_leak(service, before);
    if (_i == SLOW_READER) {
        let_go(pid);
    } else {
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 0);
    }
    (void)fprintf(stderr,
                  "  e2e   %d slow %s: all ended after %.1f s; others' p99 %.2f ms, calm %.2f\n",
                  MANY, names[_i], (double)(cf_now_ns() - since_ns) / 1e9, (double)slow_ns / 1e6,
                  (double)calm_ns / 1e6);
    ck_assert_int_ge(cf_now_ns() - since_ns, 3 * CF_SECOND);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(10 * CF_SECOND));
    /* Twice, where that is not less than what the machine does by itself. */
    ck_assert_int_lt(slow_ns, bound_strictly(2 * calm_ns + 5 * CF_MS));
    service_expect_normal(service);
}
END_TEST

/* many: as many that say nothing as that have said half */

/* A child that holds `n` connections, each having sent `bytes`, until it is killed. */
static pid_t hold(uint16_t port, size_t n, const char *bytes)
{
    int ready[2];
    char byte;
    pid_t pid;

    ck_assert_int_eq(pipe(ready), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (size_t i = 0; i < n; i++) {
            int fd = client_open(port);

            client_send(fd, bytes);
        }
        (void)!write(ready[1], "x", 1);
        for (;;) {
            (void)pause();
        }
    }
    (void)close(ready[1]);
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

/* How many of each: what the limit of descriptors bears, of the service and of each child. */
static size_t how_many(void)
{
    size_t want = is_long() ? 10000 : 2000;
    struct rlimit limit;
    size_t most;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    most = limit.rlim_max > 1000 ? ((size_t)limit.rlim_max - 500) / 2 : 1;
    return want < most ? want : most;
}

START_TEST(idle_and_half_sent_connections_cost_little)
{
    struct service *service = service_start_ready(
        NULL, (const char *[]){"CURFEW_CONNECTIONS=30000", "CURFEW_IDLE_TIMEOUT=10m",
                               "CURFEW_HEAD_TIMEOUT=10m", "CURFEW_POOL=4", NULL});
    size_t n = how_many();
    size_t before;
    size_t rss;
    size_t idle_rss;
    size_t half_rss;
    int64_t p99_ns;
    pid_t idle;
    pid_t half;

    wait_full(service, 4);
    wait_full(service, 4);
    service_expect_normal(service);
    before = count_descriptors(service);
    rss = service_rss_bytes(service);
    idle = hold(service->api_port, n, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
    (void)latency(service, 20, "/livez", 500); /* So that all before were looked at. */
    idle_rss = service_rss_bytes(service);
    half = hold(service->api_port, n, "GET /v1/users/1 HTTP/1.1\r\nHost: a\r\nX-Ha");
    p99_ns = calm_latency(service, 1000, "/livez", 990);
    half_rss = service_rss_bytes(service);
    (void)fprintf(stderr,
                  "  e2e   %zu idle, %zu half-sent: p99 of another %.2f ms; %.1f KiB for each that"
                  " is idle, %.1f that is half-sent; %zu MiB in all\n",
                  n, n, (double)p99_ns / 1e6, (double)(idle_rss - rss) / (double)n / 1024,
                  (double)(half_rss - idle_rss) / (double)n / 1024, half_rss / 1024 / 1024);
    ck_assert_uint_ge(count_descriptors(service), 2 * n);
    ck_assert_int_lt(p99_ns, bound_strictly(10 * CF_MS));
    ck_assert_int_lt((int64_t)half_rss, bound_strictly(400 * INT64_C(1024) * 1024));
    let_go(idle);
    let_go(half);
    expect_no_leak(service, before);
    service_expect_normal(service);
}
END_TEST

/* limit: too many */

START_TEST(clients_above_the_limit_are_told_and_probes_answered)
{
    struct service *service = service_start_ready(
        NULL, (const char *[]){"CURFEW_CONNECTIONS=100", "CURFEW_POOL=4", NULL});
    pid_t held = hold(service->api_port, 100, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
    static int silent[500];

    for (size_t i = 0; i < N(silent); i++) {
        silent[i] = client_open(service->api_port);
    }
    for (int i = 0; i < 50; i++) {
        struct reply *reply = client_get(service->api_port, "/v1/users/1", NULL);

        ck_assert_int_eq(reply->status, 503);
        ck_assert_ptr_nonnull(reply_header(reply, "Retry-After"));
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(500 * CF_MS));
        reply = client_get(service->admin_port, "/livez", NULL);
        ck_assert_int_eq(reply->status, 200);
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(500 * CF_MS));
    }
    for (size_t i = 0; i < N(silent); i++) {
        (void)close(silent[i]);
    }
    let_go(held);
    service_wait_ready(service, 5 * CF_SECOND);
    service_expect_normal(service);
}
END_TEST

/* Fewer descriptors than the service would like. */
START_TEST(descriptors_that_are_few_make_no_harm)
{
    static const char *const few[] = {"prlimit", "--nofile=64", NULL};
    struct service *service =
        service_start_under(few, NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    static int fds[200];
    size_t n_told = 0;
    char path[64];
    char text[512];
    unsigned long ticks[2];

    for (size_t i = 0; i < N(fds); i++) {
        fds[i] = client_open(service->api_port);
        client_request(fds[i], "GET", "/livez", NULL);
    }
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)service->pid);
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(path, "r");
        unsigned long user;
        unsigned long system;

        ck_assert_ptr_nonnull(file);
        ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
        (void)fclose(file);
        ck_assert_int_eq(sscanf(strrchr(text, ')'),
                                ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                                &system),
                         2);
        ticks[i] = user + system;
        pause_ms(i == 0 ? 1000 : 0);
    }
    ck_assert_uint_lt(ticks[1] - ticks[0], (unsigned long)sysconf(_SC_CLK_TCK) / 2); /* No spin. */
    for (size_t i = 0; i < N(fds); i++) {
        char first[13] = "";

        if (recv(fds[i], first, 12, MSG_DONTWAIT) == 12) {
            n_told += strcmp(first, "HTTP/1.1 503") == 0;
        }
        (void)close(fds[i]);
    }
    ck_assert_uint_ge(n_told, 1);
    service_wait_ready(service, 5 * CF_SECOND);
    service_expect_normal(service);
}
END_TEST

/* The connections that the service has, by its own word. */
static size_t said_connections(struct service *service)
{
    json_t *line = service_find_line(service, "msg", "listening", CF_SECOND);
    json_int_t connections = json_integer_value(json_object_get(line, "connections"));

    json_decref(line);
    return (size_t)connections;
}

/* Where descriptors are few, connections are fewer than was asked for, and requests with them: who
 * is beyond their limit is told so, and keeps his connection. */
START_TEST(requests_are_limited_below_what_descriptors_leave)
{
    static int fds[1000];
    struct service *service;
    size_t n;
    int last;

    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){600, 600}), 0);
    service = service_start_ready(
        NULL, (const char *[]){"CURFEW_POOL=2", "CURFEW_LOOPS=1", "CURFEW_DEMO=1", NULL});
    n = said_connections(service) - 1;
    ck_assert_uint_lt(n, 500);
    for (size_t i = 0; i < n; i++) {
        fds[i] = client_open(service->api_port);
        ck_assert(client_request(fds[i], "GET", "/v1/sleep?seconds=60&timeout=60s", NULL));
    }
    last = client_open(service->api_port);
    WAIT_FOR(pgview_active(pg, SLEEPING) == 2);
    for (int i = 0; i < 2; i++) {
        ck_assert(client_request(last, "GET", "/v1/users/1", NULL));
        ck_assert_int_eq(client_recv(last, "GET")->status, 503);
    }
    for (size_t i = 0; i < n; i++) {
        (void)close(fds[i]);
    }
    WAIT_FOR(client_request(last, "GET", "/v1/users/1", NULL) &&
             client_recv(last, "GET")->status == 200);
    (void)close(last);
}
END_TEST

START_TEST(admin_listener_goes_by_its_names_only)
{
    struct service *service =
        service_start_ready(NULL, (const char *[]){"CURFEW_ADMIN_HOSTS=curfew.internal", NULL});
    int fd = client_open(service->admin_port);

    client_send(fd, "GET /livez HTTP/1.1\r\nHost: curfew.internal:8081\r\n\r\n");
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    client_send(fd, "GET /livez HTTP/1.1\r\nHost: rebound.example:8081\r\n\r\n");
    ck_assert_int_eq(client_recv(fd, "GET")->status, 421);
    (void)close(fd);
    fd = client_open(service->api_port);
    client_send(fd, "GET /livez HTTP/1.1\r\nHost: api.example\r\n\r\n");
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    (void)close(fd);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase, double timeout_s)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, timeout_s);
    suite_add_tcase(suite, tcase);
}

Suite *suite_limits(void)
{
    Suite *suite = suite_create("limits");
    TCase *gone = tcase_create("gone");
    TCase *slow = tcase_create("slow");
    TCase *many = tcase_create("many");
    TCase *limit = tcase_create("limit");

    tcase_add_test(gone, halves_with_fin_leave_nothing);
    tcase_add_test(gone, halves_with_rst_leave_nothing);
    tcase_add_test(gone, resets_in_mid_reply_leave_nothing);
    tcase_add_test(gone, fan_outs_that_are_left_leave_nothing);
    add_case(suite, gone, 60);

    tcase_add_loop_test(slow, thousand_slow_clients_are_ended_and_others_served, 0, 3);
    add_case(suite, slow, 60);

    tcase_add_test(many, idle_and_half_sent_connections_cost_little);
    add_case(suite, many, is_long() ? 400 : 120);

    tcase_add_test(limit, clients_above_the_limit_are_told_and_probes_answered);
    tcase_add_test(limit, descriptors_that_are_few_make_no_harm);
    tcase_add_test(limit, requests_are_limited_below_what_descriptors_leave);
    tcase_add_test(limit, admin_listener_goes_by_its_names_only);
    add_case(suite, limit, 60);
    return suite;
}
