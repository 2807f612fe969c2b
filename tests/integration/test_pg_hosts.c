/* SPDX-License-Identifier: MIT */
/* Hosts that have a name, and lists of them: where they are looked up, and which of them is used
 * when others are dead or silent.
 *
 * The server is that of CF_TEST_PG_URL, reached by its port on 127.0.0.1. */
#include "pg_fixture.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Fixture */

static char url[16384];

static const struct cf_pg_stmt one = {.name = "hosts_one", .sql = "SELECT 1"};

/* Helpers */

static int to_nobody(size_t number)
{
    (void)number;
    return RELAY_IGNORE;
}

/* Open a database on these hosts, wait for a connection, and use it. */
static void use_hosts(const char *hosts, const char *ports)
{
    fixture_url(url, sizeof(url), NULL, (const char *const[]){"host", hosts, "port", ports, NULL});
    fixture_open((struct cf_pg_options){.url = url,
                                        .pool_max = 1,
                                        .cancel_timeout_ns = 500 * CF_MS,
                                        .backoff_max_ns = 200 * CF_MS},
                 1);
    WAIT_FOR(fixture_stats().opened == 1);
    ck_assert_int_eq(query_i64(&one, NULL, 0), 1);
}

/* Names */

static atomic_int lookups;
static atomic_int lookups_on_a_loop;

static int (*real_getaddrinfo)(const char *, const char *, const struct addrinfo *,
                               struct addrinfo **);

static void find_getaddrinfo(void)
{
    *(void **)&real_getaddrinfo = dlsym(RTLD_NEXT, "getaddrinfo");
}

/* Stands before the C library's, for the library under test and for libpq: who asks a name server,
 * and where? */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, find_getaddrinfo);
    if (name != NULL && (hints == NULL || (hints->ai_flags & AI_NUMERICHOST) == 0)) {
        (void)atomic_fetch_add(cf_loop_current() != NULL ? &lookups_on_a_loop : &lookups, 1);
    }
    return real_getaddrinfo(name, service, hints, out);
}

START_TEST(server_behind_a_name_is_found_off_the_loop)
{
    char port[16];

    (void)snprintf(port, sizeof(port), "%d", fixture.server_port);
    atomic_store(&lookups, 0);
    use_hosts("localhost", port);
    ck_assert_int_ge(atomic_load(&lookups), 1);
    ck_assert_int_eq(atomic_load(&lookups_on_a_loop), 0);
}
END_TEST

/* One host that has a name, which is looked up, and so many others. */
static const struct {
    int n_others;
    int other_size;
    const char *says;
} crowds[] = {
    {32, 8, "more than 32 addresses for localhost,/"},
    {17, 250, "more than 4096 bytes of addresses for localhost,/"},
};

START_TEST(hosts_of_which_there_are_too_many_say_what_is)
{
    static char hosts[8192];
    int size = snprintf(hosts, sizeof(hosts), "localhost");
    struct cf_err err;

    for (int i = 0; i < crowds[_i].n_others; i++) {
        size += snprintf(hosts + size, sizeof(hosts) - (size_t)size, ",/%0*d",
                         crowds[_i].other_size - 1, i);
    }
    fixture_url(url, sizeof(url), NULL, (const char *const[]){"host", hosts, NULL});
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 1}, 1);
    err = query_error(&one, NULL, 0);
    ck_assert_int_eq(err.code, CF_EUNAVAIL);
    ck_assert_str_eq(err.phase, "connect");
    ck_assert_ptr_null(strchr(err.msg, '\n'));
    ck_assert_msg(strstr(err.msg, crowds[_i].says) != NULL, "%s", err.msg);
}
END_TEST

static const struct {
    const char *url;
    const char *env;
} services[] = {
    {"service=somewhere", NULL}, {"postgresql:///db?service=somewhere", NULL}, {NULL, "somewhere"}};

/* Its host would be resolved by libpq, on the loop. */
START_TEST(service_file_is_refused)
{
    struct cf_err err = {.code = CF_OK};

    if (services[_i].env != NULL) {
        ck_assert_int_eq(setenv("PGSERVICE", services[_i].env, 1), 0);
    }
    ck_assert_int_eq(
        fixture_try_open((struct cf_pg_options){.url = services[_i].url, .pool_max = 1}, 1, &err),
        CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "service"));
    ck_assert_ptr_null(fixture.pg);
}
END_TEST

/* Others that are dead */

/* Nobody listens at the first, or it has no address; the second is alive. */
static const char *const two_hosts[] = {
    "127.0.0.1,127.0.0.1",
    "localhost,localhost",
    "no-such-host.invalid,127.0.0.1",
};

START_TEST(server_second_of_two_hosts_is_used_when_the_first_is_dead)
{
    char ports[32];

    relay_start(&fixture.relay, to_nobody);
    (void)snprintf(ports, sizeof(ports), "%d,%d", fixture.relay.port, fixture.server_port);
    relay_stop(&fixture.relay);
    use_hosts(two_hosts[_i], ports);
}
END_TEST

/* Others that are silent */

/* First one that is silent, then the server, whose port is %. Silent are: port @ of 127.0.0.1, port
 * & of 127.0.0.2, and the Unix socket in $. */
static const struct {
    const char *host;
    const char *hostaddr;
    const char *port;
    size_t failures_max;
    bool in_env;
    const char *named; /* Who is said to be silent, in the same way; NULL: one or the other. */
} silent_first[] = {
    {"127.0.0.1,127.0.0.1", NULL, "@,%", 1, false, "127.0.0.1, port @"},
    {"127.0.0.1,127.0.0.1,127.0.0.1", NULL, "@,@,%", 2, false, "127.0.0.1, port @"},
    {"no.such.host,no.such.host", "127.0.0.1,127.0.0.1", "@,%", 1, false,
     "no.such.host (127.0.0.1), port @"},
    {NULL, "127.0.0.1,127.0.0.1", "@,%", 1, false, "127.0.0.1, port @"},
    {NULL, "127.0.0.2,127.0.0.1", "&,%", 1, false, "127.0.0.2, port &"},
    {"localhost,localhost", NULL, "@,%", 2, false, NULL}, /* Each may be two addresses. */
    {"localhost,127.0.0.1", NULL, "@,%", 2, false, NULL},
    {"$,127.0.0.1", NULL, "%", 1, false, "$, port %"},
    {"$,localhost", NULL, "%", 1, false, "$, port %"},
    {"127.0.0.1,127.0.0.1", NULL, "@,%", 1, true, "127.0.0.1, port @"},
};

static char socket_place[sizeof(fixture.app) + 1];

/* One can connect to it, and nobody accepts. In the abstract name space: no file is left. */
static void make_silent_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int size;

    (void)snprintf(socket_place, sizeof(socket_place), "@%s", fixture.app);
    size = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "%s/.s.PGSQL.%d",
                    fixture.app, fixture.server_port);
    size += (int)offsetof(struct sockaddr_un, sun_path) + 1;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, (socklen_t)size), 0);
    ck_assert_int_eq(listen(fd, 64), 0); /* It ends with the test. */
}

static int silent_port;

static void make_silent_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 64), 0); /* It ends with the test, too. */
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    silent_port = ntohs(address.sin_port);
}

/* The list filled in; NULL stays. */
static const char *fill_in(const char *list, char *out, size_t size)
{
    FILE *file;

    if (list == NULL) {
        return NULL;
    }
    file = fmemopen(out, size, "we");
    ck_assert_ptr_nonnull(file);
    for (; *list != '\0'; list++) {
        switch (*list) {
        case '@':
            (void)fprintf(file, "%d", fixture.relay.port);
            break;
        case '%':
            (void)fprintf(file, "%d", fixture.server_port);
            break;
        case '&':
            (void)fprintf(file, "%d", silent_port);
            break;
        case '$':
            (void)fputs(socket_place, file);
            break;
        default:
            (void)fputc(*list, file);
            break;
        }
    }
    ck_assert_int_eq(fclose(file), 0);
    return out;
}

static void make_list_url(int i)
{
    char host[128];
    char hostaddr[128];
    char port[128];
    const char *settings[] = {
        "host",     fill_in(silent_first[i].host, host, sizeof(host)),
        "hostaddr", fill_in(silent_first[i].hostaddr, hostaddr, sizeof(hostaddr)),
        "port",     fill_in(silent_first[i].port, port, sizeof(port)),
        "sslmode",  "disable",
        NULL,
    };

    if (silent_first[i].in_env) {
        ck_assert_int_eq(setenv("PGHOST", settings[1], 1), 0);
        ck_assert_int_eq(setenv("PGPORT", settings[5], 1), 0);
        settings[1] = NULL;
        settings[5] = NULL;
    }
    fixture_url(url, sizeof(url), NULL, settings);
}

static void expect_silent_is_named(int i)
{
    static const char said[] = "connect: no answer within 500 ms from ";
    struct cf_err err = events_get(CF_PG_EVENT_CONNECT_FAILED, 0).err;
    char named[128];

    ck_assert_msg(strncmp(err.msg, said, strlen(said)) == 0, "%s", err.msg);
    if (silent_first[i].named != NULL) {
        ck_assert_str_eq(err.msg + strlen(said),
                         fill_in(silent_first[i].named, named, sizeof(named)));
    }
}

/* Each attempt starts with the next; libpq alone would never come to it. The control connection is
 * there, too, after some more. */
START_TEST(silent_host_is_not_first_for_ever)
{
    size_t failures_max = silent_first[_i].failures_max;

    relay_start(&fixture.relay, to_nobody);
    make_silent_socket();
    make_silent_listener();
    make_list_url(_i);
    fixture_open(
        (struct cf_pg_options){.url = url, .pool_max = 1, .connect_timeout_ns = 500 * CF_MS}, 1);
    WAIT_FOR(events_count(CF_PG_EVENT_CONNECTED) > 0);
    ck_assert_int_ge(events_count(CF_PG_EVENT_CONNECT_FAILED), 1);
    ck_assert_int_le(events_count(CF_PG_EVENT_CONNECT_FAILED), failures_max);
    expect_silent_is_named(_i);
    WAIT_FOR((fixture_cancel_one(), fixture_settle(), fixture_backends(fixture_view()) == 2));
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

/* Suite */

Suite *suite_pg_hosts(void)
{
    Suite *suite = suite_create("pg_hosts");
    TCase *tc = tcase_create("hosts");

    tcase_add_checked_fixture(tc, fixture_setup_server, fixture_teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, server_behind_a_name_is_found_off_the_loop);
    tcase_add_loop_test(tc, hosts_of_which_there_are_too_many_say_what_is, 0, N(crowds));
    tcase_add_loop_test(tc, service_file_is_refused, 0, N(services));
    tcase_add_loop_test(tc, server_second_of_two_hosts_is_used_when_the_first_is_dead, 0,
                        N(two_hosts));
    tcase_add_loop_test(tc, silent_host_is_not_first_for_ever, 0, N(silent_first));
    suite_add_tcase(suite, tc);
    return suite;
}
