/* SPDX-License-Identifier: MIT */
/* Addresses as they are written, and the networks that have them. */
#include "curfew/http/address.h"

#include <check.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/client.h>
#include <curfew/http.h>

#include "curfew/http/host.h"
#include "curfew/http/listen.h"
#include "fault.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Helpers */

static struct cf__address address_of(const char *text)
{
    struct cf__address address;

    ck_assert_msg(cf__address_read(text, strlen(text), &address), "%s", text);
    return address;
}

static bool have(const char *networks, const char *text)
{
    struct cf__address address = address_of(text);
    struct cf__networks *list;
    struct cf_err err;
    bool found;

    ck_assert_msg(cf__networks_new(networks, &list, &err) == CF_OK, "%s", err.msg);
    found = cf__networks_have(list, &address);
    cf__networks_free(list);
    return found;
}

/* read and write */

static const struct {
    const char *text;
    const char *written; /* NULL: it is none. */
} addresses[] = {
    {"192.0.2.1", "192.0.2.1"},
    {"192.0.2.1:80", "192.0.2.1"},
    {"0.0.0.0", "0.0.0.0"},
    {"2001:DB8::1", "2001:db8::1"},
    {"[2001:db8::1]", "2001:db8::1"},
    {"[2001:db8::1]:65535", "2001:db8::1"},
    {"::ffff:192.0.2.1", "192.0.2.1"},
    {"::1", "::1"},
    {"", NULL},
    {":", NULL},
    {":80", NULL},
    {"192.0.2", NULL},
    {"192.0.2.256", NULL},
    {"192.0.2.1:", NULL},
    {"192.0.2.1:x", NULL},
    {"192.0.2.1 ", NULL},
    {"192.0.2.1/8", NULL},
    {"0x7f.1", NULL},
    {"[192.0.2.1]", NULL},
    {"[2001:db8::1", NULL},
    {"[2001:db8::1]x", NULL},
    {"[2001:db8::1]:", NULL},
    {"[]", NULL},
    {"2001:db8::1]:80", NULL},
    {"fe80::1%eth0", NULL},
    {"unknown", NULL},
    {"_hidden", NULL},
    {"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb", NULL},
};

START_TEST(read_takes_what_is_an_address)
{
    char written[INET6_ADDRSTRLEN];
    struct cf__address address;
    bool is_one = cf__address_read(addresses[_i].text, strlen(addresses[_i].text), &address);

    ck_assert_msg(is_one == (addresses[_i].written != NULL), "%s", addresses[_i].text);
    if (is_one) {
        cf__address_write(&address, written);
        ck_assert_str_eq(written, addresses[_i].written);
    }
}
END_TEST

START_TEST(read_stops_at_its_size)
{
    struct cf__address wanted = address_of("192.0.2.12");
    struct cf__address address;

    ck_assert(cf__address_read("192.0.2.123", 10, &address));
    ck_assert_mem_eq(&address, &wanted, sizeof(address));
    ck_assert(!cf__address_read("192.0.2.1\0", 10, &address));
    ck_assert(!cf__address_read("[::1]:8", 6, &address));
}
END_TEST

START_TEST(of_a_socket_is_the_same_as_of_text)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xC0000201)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr none = {.sa_family = AF_UNIX};
    struct cf__address address;
    struct cf__address text = address_of("192.0.2.1");
    char written[INET6_ADDRSTRLEN];

    cf__address_of((struct sockaddr *)&four, &address);
    ck_assert_mem_eq(&address, &text, sizeof(address));
    text = address_of("::1");
    cf__address_of((struct sockaddr *)&six, &address);
    ck_assert_mem_eq(&address, &text, sizeof(address));
    cf__address_of(&none, &address);
    cf__address_write(&address, written);
    ck_assert_str_eq(written, "");
    cf__address_of(NULL, &address);
    cf__address_write(&address, written);
    ck_assert_str_eq(written, "");
}
END_TEST

/* client */

START_TEST(client_of_ipv6_is_its_network)
{
    struct cf__address one = address_of("2001:db8:1:2:3::4");
    struct cf__address other = address_of("2001:db8:1:2:ffff::1");
    struct cf__address four = address_of("192.0.2.1");
    struct cf__address a = cf__address_client(&one);
    struct cf__address b = cf__address_client(&other);

    ck_assert_mem_eq(&a, &b, sizeof(a));
    a = cf__address_client(&four);
    ck_assert_mem_eq(&a, &four, sizeof(a));
}
END_TEST

/* networks */

START_TEST(networks_have_what_is_in_them)
{
    ck_assert(have("10.0.0.0/8", "10.255.0.1"));
    ck_assert(have("10.1.2.3/8", "10.255.0.1")); /* What does not count is not looked at. */
    ck_assert(!have("10.0.0.0/8", "11.0.0.1"));
    ck_assert(have("10.0.0.0/8", "::ffff:10.0.0.1"));
    ck_assert(have(" 192.0.2.1 ,, ::1\t2001:db8::/33 ", "2001:db8:7fff::1"));
    ck_assert(!have("192.0.2.1, ::1, 2001:db8::/33", "2001:db8:8000::1"));
    ck_assert(have("192.0.2.1, ::1", "::1"));
    ck_assert(!have("192.0.2.1", "192.0.2.2"));
    ck_assert(have("192.0.2.0/31", "192.0.2.1"));
    ck_assert(!have("192.0.2.0/31", "192.0.2.2"));
    ck_assert(have("0.0.0.0/0", "255.1.1.1"));
    ck_assert(!have("0.0.0.0/0", "2001:db8::1")); /* Of IPv4, all; of IPv6, none. */
    ck_assert(have("::/0", "2001:db8::1"));
    ck_assert(!have("", "192.0.2.1"));
    ck_assert_int_eq(cf_http_proxies_check("192.0.2.1, ::/0", NULL), CF_OK);
    ck_assert_int_eq(cf_http_proxies_check("", NULL), CF_OK);
    ck_assert_int_eq(cf_http_proxies_check(NULL, NULL), CF_OK);
}
END_TEST

static const char *const no_networks[] = {
    "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8x", "10.0.0.0/-1", "::/129",        "proxy.example",
    "10.0.0.1:80", "[::1]",     "10/8",        "/8",          "10.0.0.0/0008", "1.2.3.4;5.6.7.8",
};

START_TEST(networks_name_what_is_none)
{
    char text[64] = "::1, ";
    struct cf__networks *list = NULL;
    struct cf_err err;

    (void)strcat(text, no_networks[_i]);
    ck_assert_int_eq(cf__networks_new(text, &list, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, no_networks[_i]));
    ck_assert_ptr_null(list);
    memset(&err, 0, sizeof(err));
    ck_assert_int_eq(cf_http_proxies_check(text, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, no_networks[_i]));
}
END_TEST

START_TEST(networks_out_of_memory)
{
    struct cf__networks *list = NULL;
    struct cf_err err;

    fault_alloc(1, false);
    ck_assert_int_eq(cf__networks_new("::1", &list, &err), CF_ENOMEM);
    ck_assert(fault_off());
}
END_TEST

/* host */

static const struct {
    const char *host;
    bool is_ours;
} hosts[] = {
    {"localhost", true},       {"LocalHost:8081", true},
    {"127.0.0.1:8081", true},  {"[::1]:8081", true},
    {"192.0.2.1", true},       {"curfew", true},
    {"Curfew:8081", true},     {"b.internal.", true},
    {"evil.example", false},   {"curfew.evil", false},
    {"curfe", false},          {"localhost.evil", false},
    {"127.0.0.1.evil", false}, {"", false},
    {":8081", false},          {".", false},
    {"curfew,", false},        {"c.internal", true},
};

START_TEST(host_is_ours_if_it_is_listed_or_an_address)
{
    ck_assert_int_eq(cf__host_is_ours(hosts[_i].host, "curfew, b.internal c.internal."),
                     hosts[_i].is_ours);
}
END_TEST

/* listen_check */

static const struct {
    const char *text;
    bool is_good;
} listens[] = {
    {"127.0.0.1:8080", true},
    {"[::1]:0", true},
    {":65535", true},
    {"curfew.:80", true}, /* A name is not asked for. */
    {"8080", false},
    {"127.0.0.1:", false},
    {"127.0.0.1:65536", false},
    {"::1:80", false},
    {"[::1:80", false},
    {"localhost:http", false},
    {"", false},
    {":-1", false},
};

START_TEST(listen_check_takes_host_and_port)
{
    struct cf_err err = {.msg = ""};
    char said[128];

    (void)snprintf(said, sizeof(said),
                   "cannot listen on %s: not host:port, with a port from 0 to 65535",
                   listens[_i].text);
    ck_assert_int_eq(cf_http_listen_check(listens[_i].text, &err),
                     listens[_i].is_good ? CF_OK : CF_EINVAL);
    ck_assert_str_eq(err.msg, listens[_i].is_good ? "" : said);
}
END_TEST

START_TEST(listen_check_of_long_text_refuses_it)
{
    char text[400];

    memset(text, 'a', sizeof(text));
    memcpy(text + sizeof(text) - 4, ":80", 4);
    ck_assert_int_eq(cf_http_listen_check(text, NULL), CF_EINVAL);
}
END_TEST

START_TEST(hosts_check_takes_names)
{
    struct cf_err err;

    ck_assert_int_eq(cf_http_hosts_check(NULL, NULL), CF_OK);
    ck_assert_int_eq(cf_http_hosts_check("", NULL), CF_OK);
    ck_assert_int_eq(cf_http_hosts_check("curfew, Curfew.internal a_b-c", NULL), CF_OK);
    ck_assert_int_eq(cf_http_hosts_check("curfew curfew.internal:8081", &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "\"curfew.internal:8081\" is no host: should be like "));
    ck_assert_int_eq(cf_http_hosts_check("http://curfew.internal", NULL), CF_EINVAL);
    ck_assert_int_eq(cf_http_hosts_check("[::1]", NULL), CF_EINVAL);
    ck_assert_int_eq(cf_http_hosts_check("*.internal", NULL), CF_EINVAL);
}
END_TEST

/* listen */

static int resolver_fails; /* With this; 0: it does not. */

int __real_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out);

/* The linker's --wrap sends our calls here. */
int __wrap_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out)
{
    return resolver_fails != 0 ? resolver_fails : __real_getaddrinfo(name, service, hints, out);
}

static const struct {
    int why;
    enum cf_code code;
} unresolved[] = {
    {EAI_NONAME, CF_EINVAL}, {EAI_FAIL, CF_EINVAL},
    {EAI_AGAIN, CF_EIO}, /* May pass, and is not the setting's fault. */
    {EAI_SYSTEM, CF_EIO},    {EAI_MEMORY, CF_ENOMEM},
};

START_TEST(listen_of_a_name_that_is_not_resolved_says_whose_fault_it_is)
{
    struct cf_err err;
    uint16_t port;
    int fd;

    resolver_fails = unresolved[_i].why;
    errno = EMFILE;
    ck_assert_int_eq(cf__listen("curfew.internal:0", 1, &fd, &port, &err), unresolved[_i].code);
    resolver_fails = 0;
    ck_assert_ptr_nonnull(strstr(err.msg, "cannot listen on curfew.internal:0: "));
    ck_assert_int_eq(cf__listen("127.0.0.1:0", 1, &fd, &port, &err), CF_OK);
    (void)close(fd);
}
END_TEST

/* allow_check: what the rules mean, test_client_rules.c asks */

START_TEST(allow_check_names_what_is_no_rule)
{
    struct cf_err err;

    ck_assert_int_eq(cf_client_allow_check("api.example.org, 10.0.0.0/8 *", NULL), CF_OK);
    ck_assert_int_eq(cf_client_allow_check("", NULL), CF_OK);
    ck_assert_int_eq(cf_client_allow_check(NULL, NULL), CF_OK);
    ck_assert_int_eq(cf_client_allow_check("a.example ftp://b.example", &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "\"ftp://b.example\" is no rule: should be like "));
    ck_assert_int_eq(cf_client_allow_check("10.0.0.0/33", &err), CF_EINVAL);
}
END_TEST

Suite *suite_address(void)
{
    Suite *suite = suite_create("address");
    TCase *read = tcase_create("read");
    TCase *networks = tcase_create("networks");
    TCase *host = tcase_create("host");
    TCase *check = tcase_create("check");
    TCase *listen = tcase_create("listen");

    tcase_add_loop_test(read, read_takes_what_is_an_address, 0, N(addresses));
    tcase_add_test(read, read_stops_at_its_size);
    tcase_add_test(read, of_a_socket_is_the_same_as_of_text);
    tcase_add_test(read, client_of_ipv6_is_its_network);
    suite_add_tcase(suite, read);

    tcase_add_test(networks, networks_have_what_is_in_them);
    tcase_add_loop_test(networks, networks_name_what_is_none, 0, N(no_networks));
    tcase_add_test(networks, networks_out_of_memory);
    suite_add_tcase(suite, networks);

    tcase_add_loop_test(host, host_is_ours_if_it_is_listed_or_an_address, 0, N(hosts));
    suite_add_tcase(suite, host);

    tcase_add_loop_test(check, listen_check_takes_host_and_port, 0, N(listens));
    tcase_add_test(check, listen_check_of_long_text_refuses_it);
    tcase_add_test(check, hosts_check_takes_names);
    tcase_add_test(check, allow_check_names_what_is_no_rule);
    suite_add_tcase(suite, check);

    tcase_add_loop_test(listen, listen_of_a_name_that_is_not_resolved_says_whose_fault_it_is, 0,
                        N(unresolved));
    suite_add_tcase(suite, listen);
    return suite;
}
