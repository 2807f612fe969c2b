/* SPDX-License-Identifier: MIT */
/* An order that is added, in which an allocation fails, or all from one on: ours, or libpq's while
 * it reads the answer to COMMIT.
 *
 * Invariant: who is told 201 has an order; who is told that there was no memory, or no PostgreSQL,
 * has none; and only where it may be either, that is said. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "pgview.h"
#include "subject.h"

#define TIMEOUT_NS (10 * CF_SECOND)
#define TARGET "/v1/orders?timeout=10s"

/* Longer than what jansson has room for at first. */
#define LONG_NAMES "{\"\\u0075ser_id\":1,\"\\u0074otal_cents\":%d}"

/* Helpers */

/* Each is told by its total from all others. */
static int next_total(void)
{
    static int total = 1000;

    return total++;
}

static struct reply *post(const struct subject *of, int total)
{
    char headers[256];
    char body[64];
    struct reply *reply;
    int size = snprintf(body, sizeof(body), LONG_NAMES, total);
    int fd = client_open(of->service->api_port);

    (void)snprintf(headers, sizeof(headers),
                   "Content-Type: application/json\r\nIdempotency-Key: %d\r\n"
                   "Content-Length: %d\r\n\r\n%s",
                   total, size, body);
    (void)client_send(fd, "POST " TARGET " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    (void)client_send(fd, headers);
    reply = client_recv(fd, "POST");
    (void)close(fd);
    return reply;
}

static int64_t orders_of(const struct subject *of, int total)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", total);
    return pgview_i64(of->pg, "select count(*) from orders where total_cents = $1",
                      (const char *[]){text, NULL});
}

/* A reply that leaves it open, or none at all. */
static bool is_open(const struct reply *reply)
{
    return reply->status == 0 || reply->status == 504 ||
           (reply->status == 500 && strcmp(reply_str(reply, "code"), "outcome_unknown") == 0);
}

static void add(struct subject *of)
{
    int64_t since_ns = cf_now_ns();
    int total = next_total();
    struct reply *reply = post(of, total);
    int64_t orders;

    ck_assert_msg(cf_now_ns() - since_ns < bound(TIMEOUT_NS), "%s: it took long", subject_say(of));
    if (is_open(reply)) {
        return;
    }
    ck_assert_msg(reply->status == 201 || reply->status == 503, "%s: %d %s", subject_say(of),
                  reply->status, reply->body);
    orders = orders_of(of, total);
    ck_assert_msg(orders == (reply->status == 201), "%s: %d, and orders: %jd", subject_say(of),
                  reply->status, (intmax_t)orders);
}

/* write */

START_TEST(write_without_memory)
{
    /* All statements allocate alike, and only COMMIT's answer matters so much. */
    subject_examine(&(struct examination){.schema = "alloc_write",
                                          .pool = 8,
                                          .cancel = "control",
                                          .every_n = true,
                                          .scenarios = {{"order", add}}});
}
END_TEST

Suite *suite_write(void)
{
    Suite *suite = suite_create("write");
    TCase *tc = tcase_create("write");

    tcase_add_test(tc, write_without_memory);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
