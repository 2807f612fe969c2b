/* SPDX-License-Identifier: MIT */
/* Every order, streamed: whole, refused, late, read slowly or not at all, and left by its client.
 *
 * What is streamed is the sample data, or where that has to be counted or to take its time a view
 * of it, in a schema of the test's own. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "chunks.h"
#include "client.h"
#include "pgview.h"
#include "service.h"

#define SCHEMA "e2e_export"
#define EXPORTING "FROM orders ORDER BY id$"
#define ROUNDS 20
#define MIB (1024 * 1024)

#define NEVER 1000000000 /* More orders than there are. */

/* Fixture */

static struct service *service;
static char url[512];
static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    service = service_start_ready(
        NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=1", "CURFEW_EXPORTS=1", NULL});
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* The same orders, counted as they are read; each past `pause_after` takes a moment. */
static void start_on_view(int pause_after, const char *setting)
{
    char sql[512];

    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    (void)snprintf(sql, sizeof(sql),
                   "alter table orders rename to stored; create sequence made;"
                   "create view orders as select id, user_id, status, total_cents,"
                   " case when nextval('made') > %d and pg_sleep(0.01)::text is null then null"
                   " else created_at end as created_at from public.orders order by id",
                   pause_after);
    pgview_exec(pg, sql);
    service = service_start_ready(url, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=1",
                                                        "CURFEW_EXPORTS=1", setting, NULL});
}

static void teardown_view(void)
{
    teardown();
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

/* Begin an export on a connection of its own. */
static int begin(struct chunks *chunks, const char *target)
{
    int fd = client_open(service->api_port);

    client_request(fd, "GET", target, NULL);
    chunks_begin(chunks, fd);
    ck_assert_int_eq(chunks->status, 200);
    return fd;
}

/* Read one line, and no byte more. */
static void read_line(struct chunks *chunks)
{
    char byte;

    do {
        ck_assert_uint_eq(chunks_read(chunks, &byte, 1), 1);
    } while (byte != '\n');
}

static int64_t rows_made(void)
{
    return pgview_i64(pg, "select case when is_called then last_value else 0 end from made", NULL);
}

/* Wait until the server's process waits for somebody to read what it sends. */
static void wait_held_up(void)
{
    int64_t until_ns = cf_now_ns() + bound(10 * CF_SECOND);

    while (pgview_i64(pg,
                      "select count(*) from pg_stat_activity where state = 'active'"
                      " and query ~ '" EXPORTING "' and wait_event = 'ClientWrite'",
                      NULL) != 1) {
        ck_assert_msg(cf_now_ns() < until_ns, "nothing holds the server up");
    }
}

/* Wait until so many of them have ended. Their connections are lent again: what is drained for the
 * one takes nothing from the next. And their handlers have ended, with which their places are free:
 * only then is the line of a request written. */
static void wait_ended(size_t times)
{
    WAIT_FOR(service_count_lines(service, "event", "canceled") >= times);
    WAIT_FOR(service_count_lines(service, "cancel_cause", "client_gone") >= times);
}

/* The log line of the one export so far. The caller owns it. */
static json_t *logged(void)
{
    json_t *line = service_find_line(service, "http.route", "/v1/orders/export", 5 * CF_SECOND);

    ck_assert_ptr_nonnull(line);
    return line;
}

static int64_t member(const json_t *line, const char *name)
{
    return json_integer_value(json_object_get(line, name));
}

/* whole */

/* The whole body, as PostgreSQL itself writes it. */
static const struct {
    const char *target;
    const char *sql;
} forms[] = {
    {"/v1/orders/export",
     "select string_agg(format('{\"id\":%s,\"user_id\":%s,\"status\":\"%s\",\"total_cents\":%s,"
     "\"created_at\":\"%s\"}' || e'\\n', id, user_id, status, total_cents, at), '' order by id)"
     " || format('{\"_end\":true,\"rows\":%s}' || e'\\n', count(*)), count(*)"},
    {"/v1/orders/export?format=csv",
     "select e'id,user_id,status,total_cents,created_at\\r\\n' ||"
     " string_agg(format(e'%s,%s,%s,%s,%s\\r\\n', id, user_id, status, total_cents, at),"
     " '' order by id), count(*)"},
    {"/v1/orders/export?format=csv&status=paid",
     "select e'id,user_id,status,total_cents,created_at\\r\\n' ||"
     " string_agg(format(e'%s,%s,%s,%s,%s\\r\\n', id, user_id, status, total_cents, at),"
     " '' order by id), count(*)"},
};

#define AT                                                                                         \
    " from (select *, to_char(created_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')" \
    " as at from orders where $1 = '' or status = $1) as orders"

START_TEST(export_equals_sql_and_takes_no_memory)
{
    const char *status = strstr(forms[_i].target, "status=");
    size_t before = 0;
    size_t most = 0;
    char sql[1024];
    PGresult *result;
    struct chunks chunks;
    char *piece = malloc(MIB);
    size_t at = 0;
    size_t n;
    int fd;

    ck_assert_ptr_nonnull(piece);
    (void)snprintf(sql, sizeof(sql), "%s" AT, forms[_i].sql);
    result = pgview_query(pg, sql,
                          (const char *[]){status != NULL ? status + strlen("status=") : "", NULL});
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders?limit=1", NULL)->status, 200);
    before = service_rss_bytes(service);
    fd = begin(&chunks, forms[_i].target);
    while ((n = chunks_read(&chunks, piece, MIB)) > 0) {
        size_t rss = at % 7 == 0 ? service_rss_bytes(service) : 0;

        ck_assert_uint_le(at + n, (size_t)PQgetlength(result, 0, 0));
        ck_assert_mem_eq(piece, PQgetvalue(result, 0, 0) + at, n);
        at += n;
        most = rss > most ? rss : most;
    }
    ck_assert(chunks.is_whole);
    ck_assert_uint_eq(at, (size_t)PQgetlength(result, 0, 0));
    ck_assert_uint_gt(most, 0);
    ck_assert_uint_lt(most, before + (size_t)bound_strictly(8 * MIB));
    (void)fprintf(stderr, "  e2e   export: %s orders, %.1f MB, memory %+.1f MiB\n",
                  PQgetvalue(result, 0, 1), (double)at / 1e6,
                  ((double)most - (double)before) / MIB);
    PQclear(result);
    free(piece);
    (void)close(fd);
}
END_TEST

START_TEST(export_of_bad_arguments_is_refused)
{
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export?format=xml", NULL)->status,
                     400);
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export?status=lost", NULL)->status,
                     400);
}
END_TEST

/* left */

/* By a client that has read a line. The server's process works, or sleeps in its send with
 * megabytes in the kernel's buffers: whatever it does, it has to end at once. */
static const struct {
    const char *name;
    bool is_held_up;
} moments[] = {
    {"at once", false},
    {"when it is held up", true},
};

START_TEST(export_that_is_left_ends_its_query)
{
    int64_t took_ns[ROUNDS];
    int64_t p50_ns;

    for (int i = 0; i < ROUNDS; i++) {
        struct chunks chunks;
        int fd = begin(&chunks, "/v1/orders/export");

        read_line(&chunks);
        if (moments[_i].is_held_up) {
            wait_held_up();
        }
        if (i == 0) { /* Its place is taken. */
            ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export", NULL)->status, 503);
        }
        (void)close(fd);
        took_ns[i] = pgview_wait_active(pg, EXPORTING, 0, 5 * CF_SECOND);
        ck_assert_int_ge(took_ns[i], 0);
        wait_ended((size_t)i + 1);
    }
    p50_ns = permille(took_ns, ROUNDS, 500);
    (void)fprintf(stderr, "  e2e   export left %-18s %d rounds: p50 %.2f, max %.2f ms\n",
                  moments[_i].name, ROUNDS, (double)p50_ns / 1e6,
                  (double)took_ns[ROUNDS - 1] / 1e6);
    ck_assert_int_le(p50_ns, bound(25 * CF_MS));
    ck_assert_int_le(permille(took_ns, ROUNDS, 950), bound(250 * CF_MS));
}
END_TEST

/* slow */

/* At 100 KiB a second: what the server's process has made is what is read, and what lies in bounded
 * buffers. */
START_TEST(export_that_is_read_slowly_holds_the_server_up)
{
    static char piece[10 * 1024];
    struct chunks chunks;
    size_t before;
    int64_t made;
    int fd;

    start_on_view(NEVER, NULL);
    ck_assert_int_eq(client_get(service->api_port, "/v1/users?limit=1", NULL)->status, 200);
    before = service_rss_bytes(service);
    fd = begin(&chunks, "/v1/orders/export");
    wait_held_up();
    for (int i = 0; i < 10; i++) {
        for (size_t n = 0; n < sizeof(piece);) {
            n += chunks_read(&chunks, piece, sizeof(piece) - n);
        }
        pause_ms(100);
    }
    wait_held_up();
    made = rows_made();
    (void)fprintf(stderr,
                  "  e2e   export at 100 KiB/s: %" PRId64 " orders made, memory %+.1f MiB\n", made,
                  ((double)service_rss_bytes(service) - (double)before) / MIB);
    ck_assert_uint_lt(service_rss_bytes(service), before + (size_t)bound_strictly(4 * MIB));
    ck_assert_int_lt(made, 100000);
    (void)close(fd);
    ck_assert_int_ge(pgview_wait_active(pg, EXPORTING, 0, 5 * CF_SECOND), 0);
}
END_TEST

START_TEST(export_that_nobody_reads_is_ended)
{
    int size = 4096;
    int fd;
    json_t *line;

    start_on_view(NEVER, "CURFEW_SEND_TIMEOUT=500ms");
    fd = client_open(service->api_port);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    client_request(fd, "GET", "/v1/orders/export", NULL);
    line = logged(); /* It has ended. Was it held up? */
    ck_assert_int_gt(rows_made(), 0);
    ck_assert_int_lt(rows_made(), 100000);
    ck_assert_int_ge(pgview_wait_active(pg, EXPORTING, 0, 5 * CF_SECOND), 0);
    /* And no transaction is left. */
    ck_assert_int_eq(pgview_i64(pg,
                                "select count(*) from pg_stat_activity where xact_start is not null"
                                " and query ~ '" EXPORTING "'",
                                NULL),
                     0);
    ck_assert_int_eq(member(line, "http.response.status_code"), 499);
    ck_assert(json_is_true(json_object_get(line, "broken")));
    json_decref(line);
    ck_assert_int_eq(client_call(service->api_port, "HEAD", "/v1/orders/export", NULL)->status,
                     200);
    (void)close(fd);
}
END_TEST

/* deadline */

START_TEST(export_past_its_deadline_says_so_and_breaks)
{
    struct chunks chunks;
    int64_t began_ns = cf_now_ns();
    char *last;
    char *body;
    json_t *line;
    json_t *error;
    int fd;

    start_on_view(2000, NULL);
    began_ns = cf_now_ns();
    fd = begin(&chunks, "/v1/orders/export?timeout=400ms");
    body = chunks_read_all(&chunks, NULL);
    ck_assert_int_ge(cf_now_ns() - began_ns, 400 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - began_ns, bound(CF_SECOND));
    ck_assert(!chunks.is_whole);
    ck_assert_str_eq(body + strlen(body) - 1, "\n");
    body[strlen(body) - 1] = '\0';
    last = strrchr(body, '\n');
    ck_assert_ptr_nonnull(last);
    line = json_loads(last + 1, 0, NULL);
    error = json_object_get(line, "_error");
    ck_assert_str_eq(json_string_value(json_object_get(error, "code")), "deadline_exceeded");
    ck_assert_int_eq(member(error, "status"), 504);
    ck_assert_ptr_nonnull(json_object_get(error, "request_id"));
    json_decref(line);
    ck_assert_int_ge(pgview_wait_active(pg, EXPORTING, 0, CF_SECOND), 0);
    free(body);
    (void)close(fd);
}
END_TEST

/* Then there is a status to say it with, and nothing to be saved as a file of orders. */
START_TEST(export_late_before_its_first_row_is_a_problem)
{
    struct reply *reply;

    start_on_view(NEVER, NULL);
    pgview_exec(pg, "create or replace view orders as select id, user_id, status, total_cents,"
                    " created_at from public.orders, (select pg_sleep(60)) as late");
    reply = client_get(service->api_port, "/v1/orders/export?format=csv&timeout=100ms", NULL);
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_ptr_null(reply_header(reply, "Content-Disposition"));
}
END_TEST

Suite *suite_export(void)
{
    Suite *suite = suite_create("export");
    TCase *whole = tcase_create("whole");
    TCase *left = tcase_create("left");
    TCase *of_view = tcase_create("of_view");

    tcase_add_checked_fixture(whole, setup, teardown);
    tcase_add_loop_test(whole, export_equals_sql_and_takes_no_memory, 0,
                        (int)(sizeof(forms) / sizeof(forms[0])));
    tcase_add_test(whole, export_of_bad_arguments_is_refused);
    tcase_set_timeout(whole, 60);
    suite_add_tcase(suite, whole);

    tcase_add_checked_fixture(left, setup, teardown);
    tcase_add_loop_test(left, export_that_is_left_ends_its_query, 0,
                        (int)(sizeof(moments) / sizeof(moments[0])));
    tcase_set_timeout(left, 60);
    suite_add_tcase(suite, left);

    tcase_add_checked_fixture(of_view, NULL, teardown_view);
    tcase_add_test(of_view, export_that_is_read_slowly_holds_the_server_up);
    tcase_add_test(of_view, export_that_nobody_reads_is_ended);
    tcase_add_test(of_view, export_past_its_deadline_says_so_and_breaks);
    tcase_add_test(of_view, export_late_before_its_first_row_is_a_problem);
    tcase_set_timeout(of_view, 60);
    suite_add_tcase(suite, of_view);
    return suite;
}
