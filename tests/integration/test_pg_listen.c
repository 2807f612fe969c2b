/* SPDX-License-Identifier: MIT */
/* Listeners: what is heard, what is known to be missed, and that they end in every state. */
#include "pg_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/pg_listen.h>

#include "bouncer.h"
#include "cluster.h"
#include "effort.h"
#include "fault.h"

#define HEARD_MAX 1024

/* Fixture */

static struct cluster cluster;
static struct bouncer bouncer;
static struct cf_pg_listener *listener;
static char channel[CF_PG_CHANNEL_SIZE_MAX + 1];
static const char *channels[] = {channel};

/* Seen on the relay's thread: how often the listener has asked whether the server is there. */
static atomic_size_t pings;
static atomic_size_t listens;

static struct {
    pthread_mutex_t mu; /* Guards everything below. */
    size_t n;
    char channels[HEARD_MAX][CF_PG_CHANNEL_SIZE_MAX + 1];
    char payloads[HEARD_MAX][64];
    size_t pings[HEARD_MAX]; /* That were sent before it. */
    size_t flushes;
    size_t heard_at_flush; /* How many had come at the last one. */
} heard = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void on_notify(void *arg, const char *name, const char *payload)
{
    (void)pthread_mutex_lock(&heard.mu);
    if (arg == &heard && heard.n < HEARD_MAX) {
        (void)snprintf(heard.channels[heard.n], sizeof(heard.channels[0]), "%s", name);
        (void)snprintf(heard.payloads[heard.n], sizeof(heard.payloads[0]), "%s", payload);
        heard.pings[heard.n] = atomic_load(&pings);
        heard.n++;
    }
    (void)pthread_mutex_unlock(&heard.mu);
}

static void on_listen(void *arg)
{
    (void)pthread_mutex_lock(&heard.mu);
    heard.flushes += arg == &heard;
    heard.heard_at_flush = heard.n;
    (void)pthread_mutex_unlock(&heard.mu);
}

static size_t n_heard(void)
{
    size_t n;

    (void)pthread_mutex_lock(&heard.mu);
    n = heard.n;
    (void)pthread_mutex_unlock(&heard.mu);
    return n;
}

static size_t n_flushes(void)
{
    size_t n;

    (void)pthread_mutex_lock(&heard.mu);
    n = heard.flushes;
    (void)pthread_mutex_unlock(&heard.mu);
    return n;
}

static void setup(void)
{
    fixture_setup_server();
    heard.n = 0;
    heard.flushes = 0;
    atomic_store(&pings, 0);
    atomic_store(&listens, 0);
    (void)snprintf(channel, sizeof(channel), "%s", fixture.app);
}

static void teardown(void)
{
    cf_pg_listener_free(listener);
    listener = NULL;
    fixture_teardown();
    bouncer_stop(&bouncer);
}

static void create_cluster(void)
{
    cluster_create(&cluster);
}

static void destroy_cluster(void)
{
    cluster_destroy(&cluster);
}

/* Helpers */

static void open_listener(struct cf_pg_listen_options options)
{
    struct cf_err err;

    options.channels = options.channels != NULL ? options.channels : channels;
    options.n_channels = options.n_channels > 0 ? options.n_channels : 1;
    options.on_notify = on_notify;
    options.on_listen = on_listen;
    options.arg = &heard;
    ck_assert_msg(cf_pg_listener_new(fixture.pg, &options, &listener, &err) == CF_OK, "%s",
                  err.msg);
}

/* A database on `url` (NULL: CF_TEST_PG_URL), whose own pool does not matter, and a listener. */
static void open_on(const char *url, struct cf_pg_listen_options options)
{
    fixture_open((struct cf_pg_options){.url = url,
                                        .pool_max = 1,
                                        .connect_timeout_ns = bound_strictly(CF_SECOND),
                                        .backoff_max_ns = 200 * CF_MS},
                 1);
    open_listener(options);
}

static void notify(PGconn *view, const char *name, const char *payload)
{
    PQclear(pgview_query(view, "select pg_notify($1, $2)", (const char *[]){name, payload, NULL}));
}

/* The listener's backend, by the log of events, which come just after the flush. */
static int listener_pid(void)
{
    WAIT_FOR(events_count(CF_PG_EVENT_LISTENING) >= n_flushes());
    return events_get(CF_PG_EVENT_LISTENING, events_count(CF_PG_EVENT_LISTENING) - 1).backend_pid;
}

static void expect_heard(size_t n, const char *name, const char *payload)
{
    WAIT_FOR(n_heard() > n);
    ck_assert_str_eq(heard.channels[n], name);
    ck_assert_str_eq(heard.payloads[n], payload);
}

static int to_nobody(size_t number)
{
    (void)number;
    return RELAY_IGNORE;
}

static bool contains(const char *bytes, size_t size, const char *text)
{
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

static void tap(size_t number, const char *bytes, size_t size)
{
    (void)number;
    if (contains(bytes, size, "cf_ping")) {
        atomic_fetch_add(&pings, 1);
    }
    if (contains(bytes, size, "cf_listen_0")) {
        atomic_fetch_add(&listens, 1);
    }
}

static void open_behind(relay_route route, struct cf_pg_listen_options options)
{
    const char *url = fixture_url_behind(route, NULL, "disable");

    atomic_store(&fixture.relay.tap, tap);
    open_on(url, options);
}

static bool hears(PGconn *ear, const char *payload)
{
    PGnotify *notification;
    bool is_it = false;

    ck_assert_int_eq(PQconsumeInput(ear), 1);
    while (!is_it && (notification = PQnotifies(ear)) != NULL) {
        is_it = strcmp(notification->extra, payload) == 0;
        PQfreemem(notification);
    }
    return is_it;
}

/* Notify twice, and wait until another session has heard both: a listener would have heard one. */
static void notify_an_ear(void)
{
    PGconn *ear = pgview_open(NULL);
    char listen[sizeof(channel) + 16];

    (void)snprintf(listen, sizeof(listen), "listen \"%s\"", channel);
    pgview_exec(ear, listen);
    notify(fixture_view(), channel, "first after the end");
    WAIT_FOR(hears(ear, "first after the end"));
    notify(fixture_view(), channel, "second after the end");
    WAIT_FOR(hears(ear, "second after the end"));
    PQfinish(ear);
}

/* Free it, which must not wait for anything that the network or the server should do. */
static void free_at_once(void)
{
    int64_t since_ns = cf_now_ns();
    size_t n;

    cf_pg_listener_free(listener);
    listener = NULL;
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(CF_SECOND));
    n = n_heard();
    notify_an_ear();
    ck_assert_uint_eq(n_heard(), n);
}

/* On the loop, whose next allocations may be anybody's. */
static void begin_fault(void *arg)
{
    const unsigned *nth = arg;

    fault_alloc(*nth, false);
}

static void end_fault(void *arg)
{
    bool *struck = arg;

    *struck = fault_off();
}

/* new */

START_TEST(new_takes_channels_that_can_be)
{
    static const char *const empty[] = {""};
    static const char longest[] = "123456789012345678901234567890123456789012345678901234567890123";
    static const char *const too_long[] = {
        "1234567890123456789012345678901234567890123456789012345678901234"};
    const char *longest_one[] = {longest};
    const struct {
        const char *const *channels;
        size_t n;
    } bad[] = {{channels, 0}, {channels, CF_PG_CHANNELS_MAX + 1}, {empty, 1}, {too_long, 1}};
    struct cf_err err;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    for (int i = 0; i < N(bad); i++) {
        struct cf_pg_listen_options options = {
            .channels = bad[i].channels, .n_channels = bad[i].n, .on_notify = on_notify};

        ck_assert_int_eq(cf_pg_listener_new(fixture.pg, &options, &listener, &err), CF_EINVAL);
        ck_assert_ptr_null(listener);
    }
    open_listener((struct cf_pg_listen_options){.channels = longest_one});
    WAIT_FOR(cf_pg_is_listening(listener));
    notify(fixture_view(), longest, "");
    expect_heard(0, longest, "");
}
END_TEST

START_TEST(new_out_of_memory_makes_nothing)
{
    struct cf_pg_listen_options options = {
        .channels = channels, .n_channels = 1, .on_notify = on_notify};
    unsigned n_failed = 0;
    struct cf_err err;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_pg_listener_new(fixture.pg, &options, &listener, &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            break;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
        ck_assert_ptr_null(listener);
        n_failed++;
    }
    ck_assert_uint_ge(n_failed, 2);
}
END_TEST

/* notify */

START_TEST(notify_is_heard_in_order)
{
    char text[32];

    open_on(NULL, (struct cf_pg_listen_options){0});
    WAIT_FOR(n_flushes() == 1);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(text, sizeof(text), "%d", i);
        notify(fixture_view(), channel, text);
    }
    WAIT_FOR(n_heard() == 1000);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(strtol(heard.payloads[i], NULL, 10), i);
    }
    ck_assert_uint_eq(n_flushes(), 1);
    ck_assert_uint_eq(heard.heard_at_flush, 0);
}
END_TEST

START_TEST(notify_on_several_channels_and_no_others)
{
    static const char *const odd[] = {"we\"ird; n\xC3\xA4me", "\"", "plain"};
    PGconn *view = fixture_view();

    open_on(NULL, (struct cf_pg_listen_options){.channels = odd, .n_channels = 3});
    WAIT_FOR(cf_pg_is_listening(listener));
    notify(view, "PLAIN", "another");
    notify(view, channel, "another");
    for (int i = 0; i < N(odd); i++) {
        notify(view, odd[i], "x");
        expect_heard((size_t)i, odd[i], "x");
    }
    ck_assert_uint_eq(n_heard(), N(odd));
}
END_TEST

/* An answer and a notification in one packet: nothing more comes that would have it looked for. */
START_TEST(notify_behind_an_answer_waits_for_no_further_input)
{
    open_behind(fixture_to_server, (struct cf_pg_listen_options){.ping_interval_ns = 2 * CF_SECOND,
                                                                 .ping_timeout_ns = PATIENCE_NS});
    WAIT_FOR(n_flushes() == 1);
    relay_fault(&fixture.relay, &(struct relay_faults){.to_client = {.hold = true}});
    WAIT_FOR(atomic_load(&pings) == 1);
    WAIT_FOR(pgview_i64(fixture_view(),
                        "select count(*) from pg_stat_activity where application_name = $1"
                        " and state = 'idle' and query = 'SELECT 1'",
                        (const char *[]){fixture.app, NULL}) == 1);
    notify(fixture_view(), channel, "behind");
    relay_fault(&fixture.relay, NULL);
    expect_heard(0, channel, "behind");
    ck_assert_uint_eq(heard.pings[0], 1);
}
END_TEST

/* loss */

START_TEST(loss_of_the_session_is_noticed_and_made_good)
{
    open_on(NULL, (struct cf_pg_listen_options){.ping_interval_ns = 3600 * CF_SECOND});
    for (size_t i = 0; i < 3; i++) {
        char text[16];

        WAIT_FOR(n_flushes() == i + 1);
        (void)snprintf(text, sizeof(text), "%zu", i);
        notify(fixture_view(), channel, text);
        expect_heard(i, channel, text);
        fixture_terminate(listener_pid());
        WAIT_FOR(events_count(CF_PG_EVENT_DEAF) == i + 1);
    }
    WAIT_FOR(n_flushes() == 4);
    ck_assert_uint_eq(heard.heard_at_flush, 3);
    ck_assert_ptr_nonnull(strstr(events_get(CF_PG_EVENT_DEAF, 0).err.msg, "listener: "));
}
END_TEST

START_TEST(loss_of_the_server_is_waited_out)
{
    open_on(cluster.url, (struct cf_pg_listen_options){0}); /* Not started yet. */
    WAIT_FOR(events_count(CF_PG_EVENT_DEAF) >= 3);
    ck_assert(!cf_pg_is_listening(listener));
    ck_assert_int_le(events_get(CF_PG_EVENT_DEAF, 2).retry_ns, 200 * CF_MS);
    for (size_t i = 0; i < 2; i++) {
        PGconn *view;

        cluster_start(&cluster);
        WAIT_FOR(n_flushes() == i + 1);
        view = pgview_open(cluster.url);
        notify(view, channel, "back");
        expect_heard(i, channel, "back");
        PQfinish(view);
        cluster_stop(&cluster, i == 0 ? SIGINT : SIGQUIT);
        WAIT_FOR(!cf_pg_is_listening(listener));
    }
}
END_TEST

/* Neither a byte nor an end: only a question that is not answered tells. */
START_TEST(loss_in_silence_is_noticed_by_asking)
{
    open_behind(fixture_to_server,
                (struct cf_pg_listen_options){.ping_interval_ns = 20 * CF_MS,
                                              .ping_timeout_ns = bound_strictly(3 * CF_SECOND)});
    WAIT_FOR(n_flushes() == 1);
    WAIT_FOR(atomic_load(&pings) >= 3);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_DEAF), 0);
    relay_fault(&fixture.relay,
                &(struct relay_faults){.to_client = {.hold = true}, .to_server = {.hold = true}});
    notify(fixture_view(), channel, "missed");
    WAIT_FOR(!cf_pg_is_listening(listener));
    relay_cut(&fixture.relay);
    relay_fault(&fixture.relay, NULL);
    WAIT_FOR(n_flushes() == 2);
    notify(fixture_view(), channel, "heard");
    expect_heard(0, channel, "heard");
}
END_TEST

/* Each allocation of a new connection fails once. What libpq and others allocate is not counted. */
START_TEST(loss_without_memory_is_made_good)
{
    unsigned nth = 0;
    bool struck = true;

    open_on(NULL, (struct cf_pg_listen_options){.ping_interval_ns = 3600 * CF_SECOND});
    WAIT_FOR(n_flushes() == 1);
    while (struck) {
        size_t before = n_flushes();

        nth++;
        ck_assert_int_eq(cf_loop_call(fixture.loops[0], begin_fault, &nth, NULL), CF_OK);
        fixture_terminate(listener_pid());
        WAIT_FOR(n_flushes() > before);
        ck_assert_int_eq(cf_loop_call(fixture.loops[0], end_fault, &struck, NULL), CF_OK);
        WAIT_FOR(cf_pg_is_listening(listener)); /* The fault may have struck after the flush. */
    }
    ck_assert_uint_ge(nth, 5);
    notify(fixture_view(), channel, "whole");
    expect_heard(0, channel, "whole");
}
END_TEST

START_TEST(pooler_is_refused_and_said)
{
    char url[1024];
    char port[8];

    bouncer_start(&bouncer, "session");
    (void)snprintf(port, sizeof(port), "%d", bouncer.port);
    fixture_url(url, sizeof(url), NULL,
                (const char *const[]){"host", "127.0.0.1", "port", port, NULL});
    open_on(url, (struct cf_pg_listen_options){0});
    WAIT_FOR(events_count(CF_PG_EVENT_DEAF) >= 1);
    ck_assert_ptr_nonnull(strstr(events_get(CF_PG_EVENT_DEAF, 0).err.msg, "pooler"));
    ck_assert(!cf_pg_is_listening(listener));
    ck_assert_uint_eq(n_flushes(), 0);
}
END_TEST

/* free */

START_TEST(free_while_connecting)
{
    open_behind(to_nobody, (struct cf_pg_listen_options){0});
    WAIT_FOR(atomic_load(&fixture.relay.accepted) >= 2); /* The pool's, and the listener's. */
    free_at_once();
}
END_TEST

/* The line takes so long that the answer is not there yet; or it is, on a machine that is busy. */
START_TEST(free_while_its_listen_is_not_answered)
{
    open_behind(fixture_to_server, (struct cf_pg_listen_options){0});
    WAIT_FOR(n_flushes() == 1);
    relay_fault(&fixture.relay, &(struct relay_faults){.to_client = {.delay_ns = 50 * CF_MS}});
    fixture_terminate(listener_pid());
    WAIT_FOR(atomic_load(&listens) >= 2);
    free_at_once();
}
END_TEST

START_TEST(free_while_listening)
{
    open_on(NULL, (struct cf_pg_listen_options){0});
    WAIT_FOR(n_flushes() == 1);
    free_at_once();
}
END_TEST

START_TEST(free_while_asking)
{
    size_t seen;

    open_behind(fixture_to_server, (struct cf_pg_listen_options){.ping_interval_ns = 10 * CF_MS,
                                                                 .ping_timeout_ns = PATIENCE_NS});
    WAIT_FOR(n_flushes() == 1);
    relay_fault(&fixture.relay, &(struct relay_faults){.to_client = {.hold = true}});
    seen = atomic_load(&pings);
    WAIT_FOR(atomic_load(&pings) > seen); /* It is not answered, nor is what came before. */
    free_at_once();
}
END_TEST

START_TEST(free_between_attempts)
{
    open_on("host=127.0.0.1 port=1", (struct cf_pg_listen_options){0});
    WAIT_FOR(events_count(CF_PG_EVENT_DEAF) >= 1);
    free_at_once();
}
END_TEST

START_TEST(free_at_any_moment)
{
    int rounds = effort_count(200, 20);

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    for (int i = 0; i < rounds; i++) {
        struct timespec moment = {.tv_nsec = (i % 40) * 500 * 1000L};

        open_listener((struct cf_pg_listen_options){.ping_interval_ns = CF_MS});
        (void)nanosleep(&moment, NULL);
        free_at_once();
    }
    WAIT_FOR(fixture_backends(fixture_view()) <= 2); /* The pool's and the control connection. */
}
END_TEST

START_TEST(free_of_nothing)
{
    cf_pg_listener_free(NULL);
}
END_TEST

Suite *suite_pg_listen(void)
{
    Suite *suite = suite_create("pg_listen");
    TCase *new = tcase_create("new");
    TCase *notify_case = tcase_create("notify");
    TCase *loss = tcase_create("loss");
    TCase *server = tcase_create("server");
    TCase *free_case = tcase_create("free");

    tcase_add_checked_fixture(new, setup, teardown);
    tcase_add_test(new, new_takes_channels_that_can_be);
    tcase_add_test(new, new_out_of_memory_makes_nothing);
    suite_add_tcase(suite, new);

    tcase_add_checked_fixture(notify_case, setup, teardown);
    tcase_add_test(notify_case, notify_is_heard_in_order);
    tcase_add_test(notify_case, notify_on_several_channels_and_no_others);
    tcase_add_test(notify_case, notify_behind_an_answer_waits_for_no_further_input);
    tcase_set_timeout(notify_case, 60);
    suite_add_tcase(suite, notify_case);

    tcase_add_checked_fixture(loss, setup, teardown);
    tcase_add_test(loss, loss_of_the_session_is_noticed_and_made_good);
    tcase_add_test(loss, loss_in_silence_is_noticed_by_asking);
    tcase_add_test(loss, loss_without_memory_is_made_good);
    tcase_add_test(loss, pooler_is_refused_and_said);
    tcase_set_timeout(loss, 60);
    suite_add_tcase(suite, loss);

    tcase_add_unchecked_fixture(server, create_cluster, destroy_cluster);
    tcase_add_checked_fixture(server, setup, teardown);
    tcase_add_test(server, loss_of_the_server_is_waited_out);
    tcase_set_timeout(server, 60);
    suite_add_tcase(suite, server);

    tcase_add_checked_fixture(free_case, setup, teardown);
    tcase_add_test(free_case, free_while_connecting);
    tcase_add_test(free_case, free_while_its_listen_is_not_answered);
    tcase_add_test(free_case, free_while_listening);
    tcase_add_test(free_case, free_while_asking);
    tcase_add_test(free_case, free_between_attempts);
    tcase_add_test(free_case, free_at_any_moment);
    tcase_add_test(free_case, free_of_nothing);
    tcase_set_timeout(free_case, 60);
    suite_add_tcase(suite, free_case);
    return suite;
}
