/* SPDX-License-Identifier: MIT */
/* Whom a proxy asks for, and what it may not be made to say. */
#include "curfew/http/forwarded.h"

#include <check.h>
#include <string.h>

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

#define XFF "X-Forwarded-For"
#define FWD "Forwarded"

/* Up to three headers; a name of NULL ends them. */
static const struct {
    const char *headers[3][2];
    const char *client; /* NULL: not known. */
} requests[] = {
    {{{NULL}}, NULL},
    {{{XFF, "192.0.2.1"}}, "192.0.2.1"},
    {{{"x-forwarded-for", "192.0.2.1:4711"}}, "192.0.2.1"},
    {{{XFF, " [2001:db8::1]:80 "}}, "2001:db8::1"},
    /* Whatever is to the left of what the last proxy saw, its client may have made up. */
    {{{XFF, "198.51.100.1, 192.0.2.1"}}, "192.0.2.1"},
    {{{XFF, "10.0.0.9, 192.0.2.1"}}, "192.0.2.1"},
    {{{XFF, "nonsense,,192.0.2.1"}}, "192.0.2.1"},
    /* Proxies behind one another. */
    {{{XFF, "192.0.2.1, 10.0.0.1,10.0.0.2"}}, "192.0.2.1"},
    {{{XFF, "198.51.100.1, 192.0.2.1, 10.0.0.1"}}, "192.0.2.1"},
    {{{XFF, "192.0.2.1"}, {"X-Other", "1.1.1.1"}, {XFF, "10.0.0.1"}}, "192.0.2.1"},
    {{{XFF, "198.51.100.1"}, {XFF, "192.0.2.1"}}, "192.0.2.1"},
    {{{XFF, "10.0.0.1, 10.0.0.2"}}, NULL},
    /* Behind what cannot be read nobody is known. */
    {{{XFF, ""}}, NULL},
    {{{XFF, "192.0.2.1, unknown"}}, NULL},
    {{{XFF, "192.0.2.1, unknown, 10.0.0.1"}}, NULL},
    {{{XFF, "192.0.2.1,"}}, NULL},
    /* The standard one. */
    {{{FWD, "for=192.0.2.1"}}, "192.0.2.1"},
    {{{FWD, "proto=http; For=\"[2001:db8::1]:4711\" ;by=10.0.0.1"}}, "2001:db8::1"},
    {{{FWD, "for=198.51.100.1, for=192.0.2.1;host=\"a,b;for=1.1.1.1\""}}, "192.0.2.1"},
    {{{FWD, "for=192.0.2.1"}, {FWD, "for=10.0.0.1"}}, "192.0.2.1"},
    {{{FWD, "for=192.0.2.1, for=_hidden"}}, NULL},
    {{{FWD, "for=192.0.2.1, proto=http"}}, NULL},
    {{{FWD, "for=\"192.0.2.1"}}, NULL},
    {{{FWD, "for="}}, NULL},
    {{{FWD, "\""}}, NULL},
    /* Both: one of them may have come through as the client made it. */
    {{{FWD, "for=192.0.2.1"}, {XFF, "192.0.2.1"}}, "192.0.2.1"},
    {{{FWD, "for=198.51.100.1"}, {XFF, "192.0.2.1"}}, NULL},
    {{{FWD, "for=unknown"}, {XFF, "192.0.2.1"}}, NULL},
    {{{FWD, "for=192.0.2.1"}, {XFF, "x"}}, NULL},
    {{{"X-Forwarded-Fo", "192.0.2.1"}, {"X-Forwarded-For2", "192.0.2.1"}}, NULL},
};

START_TEST(client_is_the_last_that_is_not_trusted)
{
    char text[INET6_ADDRSTRLEN];
    struct cf__networks *trusted;
    struct cf__forwarded forwarded;
    struct cf__address client;
    bool known;

    ck_assert_int_eq(cf__networks_new("10.0.0.0/8", &trusted, NULL), CF_OK);
    cf__forwarded_init(&forwarded, trusted);
    for (int i = 0; i < 3 && requests[_i].headers[i][0] != NULL; i++) {
        const char *name = requests[_i].headers[i][0];

        cf__forwarded_header(&forwarded, name, strlen(name), requests[_i].headers[i][1]);
    }
    known = cf__forwarded_client(&forwarded, &client);
    ck_assert_int_eq(known, requests[_i].client != NULL);
    if (known) {
        cf__address_write(&client, text);
        ck_assert_str_eq(text, requests[_i].client);
    }
    cf__networks_free(trusted);
}
END_TEST

Suite *suite_forwarded(void)
{
    Suite *suite = suite_create("forwarded");
    TCase *client = tcase_create("client");

    tcase_add_loop_test(client, client_is_the_last_that_is_not_trusted, 0, N(requests));
    suite_add_tcase(suite, client);
    return suite;
}
