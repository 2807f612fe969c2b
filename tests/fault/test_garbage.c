/* SPDX-License-Identifier: MIT */
/* What comes from the server is not what a server sends: bytes that a line changed or lost, and
 * messages that lie, never end, or mean nothing there.
 *
 * The way to the server leads through a relay, which spoils what passes, or leads to a server of
 * the test's own for as long as the fault lasts. */
#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fakepg.h"
#include "fault_fixture.h"
#include "pgview.h"

#define POOL 4
#define FAULT_MS 500

/* What a fault may take while it lasts. */
#define PEAK_MORE (32U << 20)

/* Fixture */

static struct fake fake;
static atomic_bool to_fake;

static int route(size_t number)
{
    (void)number;
    return atomic_load(&to_fake) ? fake.port : fault.cluster.port;
}

static void setup(void)
{
    fake_start(&fake);
    fault_start_behind(route, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
}

static void teardown(void)
{
    fault_teardown();
    fake_stop(&fake);
}

/* Helpers */

/* Ask for rows as long as the fault lasts: each request ends in time, the service lives, and what
 * it has stays within bounds. Rows are the right ones, unless `right` is NULL: then they cannot be
 * told. Returns how many requests were answered 200. */
static size_t ask_throughout(const char *right)
{
    int64_t until_ns = cf_now_ns() + FAULT_MS * CF_MS;
    size_t most_bytes = fault.baseline.rss_bytes + (size_t)bound_strictly(PEAK_MORE);
    size_t n_right = 0;

    while (cf_now_ns() < until_ns) {
        struct reply *reply =
            answer(ask(fault.service, "/v1/dashboard?user_id=1&require=all&timeout=200ms"));

        count_time(reply, 200 * CF_MS);
        n_right += reply->status == 200;
        if (right != NULL && reply->status == 200) {
            ck_assert_str_eq(reply->body, right);
        } else if (right != NULL) {
            ck_assert_msg(reply->status >= 500, "%d %s", reply->status, reply->body);
        }
        count_alive(fault.service);
        ck_assert_uint_le(service_rss_bytes(fault.service), most_bytes);
        ck_assert_uint_le(atomic_load(&fault.relay.open), POOL + 1 + 4); /* As many may cancel. */
    }
    return n_right;
}

/* lies */

/* Between two helpings of what has no end: as fast as a network, not as fast as this machine, whose
 * cores the service needs too. */
#define PAUSE_US 1000

/* Of what has no end, so many come at a time; and how long each is at most. */
#define HELPING 1024
#define LIE_MAX 80

struct lie {
    const char *name;
    enum fake_at at;
    char type;
    const char *body;
    size_t size;
    uint32_t length; /* 0: the truth. */
    bool for_ever;
    bool closes;
};

#define BODY(text) (text), sizeof(text) - 1

static const struct lie lies[] = {
    {"silence at the start", FAKE_AT_START, 0, BODY(""), 0, false, false},
    {"silence at the set-up", FAKE_AT_SETUP, 0, BODY(""), 0, false, false},
    {"silence at a query", FAKE_AT_QUERY, 0, BODY(""), 0, false, false},
    {"an end at a query", FAKE_AT_QUERY, 0, BODY(""), 0, false, true},
    {"an end at the set-up", FAKE_AT_SETUP, 0, BODY(""), 0, false, true},
    {"an error that starts nothing", FAKE_AT_START, 'E',
     BODY("SFATAL\0C53300\0Msorry, too many clients already\0"), 0, false, true},
    {"an error without fields", FAKE_AT_START, 'E', BODY(""), 0, false, true},
    {"an error that is cut", FAKE_AT_START, 'E', BODY("SFATAL\0C5"), 60, false, true},
    {"errors without end", FAKE_AT_QUERY, 'E', BODY("SERROR\0C22012\0Mno\0"), 0, true, false},
    {"an unknown authentication", FAKE_AT_START, 'R', BODY("\0\0\0\x63"), 0, false, false},
    {"a huge message at the start", FAKE_AT_START, 'R', BODY("\0\0\0\0"), 0x7FFFFFFF, false, false},
    {"a huge row", FAKE_AT_QUERY, 'D', BODY("\0\1\0\0\0\4abcd"), 0x7FFFFFF0, false, false},
    {"a huge error", FAKE_AT_QUERY, 'E', BODY("SERROR\0"), 0x7FFFFFF0, false, false},
    {"a huge parameter", FAKE_AT_SETUP, 'S', BODY("a\0b"), 0x3FFFFFFF, false, false},
    {"a length of zero", FAKE_AT_QUERY, 'T', BODY(""), 1, false, false},
    {"a negative length", FAKE_AT_QUERY, 'D', BODY(""), 0xFFFFFFFF, false, false},
    {"rows of nothing", FAKE_AT_QUERY, 'D', BODY("\0\1\0\0\0\4abcd"), 0, true, false},
    {"a description that is too short", FAKE_AT_QUERY, 'T', BODY("\x7F\xFFid\0"), 0, false, false},
    {"a COPY that nobody asked for", FAKE_AT_QUERY, 'G', BODY("\0\0\0"), 0, false, false},
    {"an unknown message", FAKE_AT_QUERY, '!', BODY("?"), 0, false, false},
    {"unknown messages without end", FAKE_AT_QUERY, '!', BODY("?"), 0, true, false},
    {"ready, again and again", FAKE_AT_QUERY, 'Z', BODY("I"), 0, true, false},
    {"an open transaction", FAKE_AT_SETUP, 'Z', BODY("T"), 0, false, false},
    {"notices without end at the start", FAKE_AT_START, 'N', BODY("SNOTICE\0C00000\0Mhm\0"), 0,
     true, false},
    {"notices without end at the set-up", FAKE_AT_SETUP, 'N', BODY("SNOTICE\0C00000\0Mhm\0"), 0,
     true, false},
    {"notices without end at a query", FAKE_AT_QUERY, 'N', BODY("SNOTICE\0C00000\0Mhm\0"), 0, true,
     false},
    {"notices without end to the idle", FAKE_AT_IDLE, 'N', BODY("SNOTICE\0C00000\0Mhm\0"), 0, true,
     false},
    {"notifications without end to the idle", FAKE_AT_IDLE, 'A', BODY("\0\0\0\7hm\0oh\0"), 0, true,
     false},
    {"notifications without end at a query", FAKE_AT_QUERY, 'A', BODY("\0\0\0\7hm\0oh\0"), 0, true,
     false},
};

#define N_LIES ((int)(sizeof(lies) / sizeof(lies[0])))

START_TEST(lie_is_a_failure_in_time_and_in_bounds)
{
    const struct lie *lie = &lies[_i];
    static char bytes[HELPING * LIE_MAX];
    bool is_answer = lie->type == 'E' || lie->type == '!'; /* The service stops reading at one. */
    char *end = bytes;
    size_t n_right;

    for (int i = 0; lie->type != 0 && i < (lie->for_ever ? HELPING : 1); i++) {
        /* An error or notice ends with the end of its fields. */
        char body[LIE_MAX] = {0};
        size_t extra = lie->type == 'E' || lie->type == 'N';

        memcpy(body, lie->body, lie->size);
        end = fake_message(end, lie->type, body, lie->size + extra, lie->length);
    }
    fake_act(&fake, &(struct fake_act){.at = lie->at,
                                       .bytes = bytes,
                                       .size = (size_t)(end - bytes),
                                       .for_ever = lie->for_ever,
                                       .pause_us = is_answer ? 0 : PAUSE_US,
                                       .closes = lie->closes});
    atomic_store(&to_fake, true);
    relay_cut(&fault.relay);
    n_right = ask_throughout("");
    ck_assert_uint_eq(n_right, 0);
    ck_assert_uint_ge(atomic_load(&fake.accepted), 1);
    atomic_store(&to_fake, false);
    relay_cut(&fault.relay);
    expect_recovery(&fault.baseline, lie->name);
}
END_TEST

/* spoilt */

static const struct {
    const char *name;
    struct relay_fault fault;
} spoils[] = {
    {"every byte is another", {.garble_every = 1}},
    {"every 7th byte is another", {.garble_every = 7}},
    {"every 101st byte is another", {.garble_every = 101}},
    {"every 1009th byte is another", {.garble_every = 1009}},
    {"cut after 1 byte", {.cut_after = 1}},
    {"cut after 5 bytes", {.cut_after = 5}},
    {"cut after 100 bytes", {.cut_after = 100}},
    {"cut after 500 bytes", {.cut_after = 500}},
    {"cut after 3000 bytes", {.cut_after = 3000}},
};

#define N_SPOILS ((int)(sizeof(spoils) / sizeof(spoils[0])))

/* To the client, then to the server. That a byte within a value is another cannot be told: TCP has
 * a sum for that, and TLS a better one. */
START_TEST(spoilt_line_is_a_failure_in_time_and_in_bounds)
{
    const struct relay_fault *spoil = &spoils[_i % N_SPOILS].fault;
    bool up = _i >= N_SPOILS;
    char *right =
        strdup(client_get(fault.service->api_port, "/v1/dashboard?user_id=1", NULL)->body);

    relay_fault(&fault.relay, up ? &(struct relay_faults){.to_server = *spoil}
                                 : &(struct relay_faults){.to_client = *spoil});
    (void)ask_throughout(spoil->garble_every > 0 ? NULL : right);
    relay_fault(&fault.relay, NULL);
    relay_cut(&fault.relay);
    free(right);
    expect_recovery(&fault.baseline, spoils[_i % N_SPOILS].name);
}
END_TEST

Suite *suite_garbage(void)
{
    Suite *suite = suite_create("garbage");
    TCase *tc = tcase_create("lies");
    TCase *spoilt = tcase_create("spoilt");

    tcase_add_unchecked_fixture(tc, fault_create_started, fault_destroy);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, lie_is_a_failure_in_time_and_in_bounds, 0, N_LIES);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);

    tcase_add_unchecked_fixture(spoilt, fault_create_started, fault_destroy);
    tcase_add_checked_fixture(spoilt, setup, teardown);
    tcase_add_loop_test(spoilt, spoilt_line_is_a_failure_in_time_and_in_bounds, 0, 2 * N_SPOILS);
    tcase_set_timeout(spoilt, 30);
    suite_add_tcase(suite, spoilt);
    return suite;
}
