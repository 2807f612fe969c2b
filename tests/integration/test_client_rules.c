/* SPDX-License-Identifier: MIT */
/* Where the HTTP client goes and where it does not: rules and redirects. */
#include "client_kit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"

/* What may be reached */

START_TEST(do_refuses_what_is_no_url_for_it)
{
    static const char *const bad[] = {"",
                                      "example.org/path",
                                      "file:///etc/passwd",
                                      "gopher://a.example/",
                                      "http://",
                                      "http://user@a.example/",
                                      "http://user:word@a.example/",
                                      "http://a.example:99999/",
                                      "http://a.ex\xc3\xa4mple/",
                                      "http://[fe80::1%25lo]/"};

    use_client((struct cf_client_options){.allow = "*"});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct job job = get(bad[i]);

        ck_assert_msg(job.code == CF_EINVAL, "%s: %s %s", bad[i], cf_code_name(job.code),
                      job.err.msg);
    }
}
END_TEST

/* All of these are ways to write an address that is not public, or lead to one. */
START_TEST(do_refuses_what_is_not_public)
{
    static const char *const hosts[] = {"127.0.0.1",
                                        "2130706433",
                                        "0x7f.1",
                                        "0177.0.0.1",
                                        "127.1",
                                        "0",
                                        "localhost",
                                        "[::1]",
                                        "[::ffff:127.0.0.1]",
                                        "[::127.0.0.1]",
                                        "169.254.169.254",
                                        "10.1.2.3",
                                        "172.16.0.1",
                                        "192.168.1.1",
                                        "100.64.0.1",
                                        "[fc00::1]",
                                        "[64:ff9b::7f00:1]",
                                        "[2002:7f00:1::]",
                                        "224.0.0.1",
                                        "255.255.255.255",
                                        "[ff02::1]",
                                        "LOCALHOST",
                                        "192.0.0.8"};

    use_client((struct cf_client_options){.allow = "*"});
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        char where[64];
        struct job job;

        (void)snprintf(where, sizeof(where), "http://%s/", hosts[i]);
        job = get(where);
        ck_assert_msg(job.code == CF_EINVAL && strstr(job.err.msg, "no rule allows") != NULL,
                      "%s: %s %s", hosts[i], cf_code_name(job.code), job.err.msg);
    }
}
END_TEST

START_TEST(do_rules_hold_scheme_host_and_port)
{
    static const struct {
        const char *allow;
        const char *url;
        bool refused;
    } cases[] = {
        {"", "http://a.invalid/", true},
        {"a.invalid", "http://a.invalid/", false},
        {"a.invalid", "http://A.INVALID/", false},
        {"a.invalid", "http://a.invalid./", false},
        {"a.invalid", "https://a.invalid/", false},
        {"a.invalid", "http://b.a.invalid/", true},
        {"a.invalid", "http://xa.invalid/", true},
        {"a.invalid", "http://a.invalid:8080/", true},
        {"a.invalid", "http://a.invalid:443/", true},
        {"a.invalid:8080", "http://a.invalid:8080/", false},
        {"a.invalid:8080", "http://a.invalid/", true},
        {"https://a.invalid", "http://a.invalid/", true},
        {"https://a.invalid", "https://a.invalid/", false},
        {"*.a.invalid", "http://b.a.invalid/", false},
        {"*.a.invalid", "http://c.b.a.invalid/", false},
        {"*.a.invalid", "http://a.invalid/", true},
        {"*.a.invalid", "http://ba.invalid/", true},
        {"*", "http://a.invalid/", false},
        {"*", "http://a.invalid:22/", true},
        {"*:22", "http://a.invalid:22/", false},
        {"x.invalid,\n a.invalid", "http://a.invalid/", false},
        {"10.0.0.0/8", "http://10.0.0.1/", true}, /* An address, but no host. */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct job job;
        bool refused;

        use_client((struct cf_client_options){.allow = cases[i].allow});
        job = get(cases[i].url);
        refused = job.code == CF_EINVAL;
        ck_assert_msg(refused == cases[i].refused, "%s for %s: %s", cases[i].url, cases[i].allow,
                      job.err.msg);
        ck_assert(refused || job.code == CF_EUNAVAIL);
        cf_client_free(client);
    }
    client = NULL;
}
END_TEST

START_TEST(do_name_may_reach_a_network_that_is_allowed)
{
    char rules[96];
    char where[64];
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), "localhost:%u 127.0.0.0/8", peer_port(peer));
    (void)snprintf(where, sizeof(where), "http://localhost:%u/", peer_port(peer));
    use_client((struct cf_client_options){.allow = rules});
    job = get(where);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
}
END_TEST

/* A rule for an address does not open it to names. */
START_TEST(do_name_may_not_reach_an_address_of_a_rule)
{
    char rules[96];
    char where[64];
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), "localhost:%u " HERE "%u", peer_port(peer),
                   peer_port(peer));
    (void)snprintf(where, sizeof(where), "http://localhost:%u/", peer_port(peer));
    use_client((struct cf_client_options){.allow = rules});
    job = get(where);
    expect_code(job, CF_EINVAL);
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

START_TEST(do_ignores_a_proxy_of_the_environment)
{
    struct peer *proxy = peer_new("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy", PEER_KEEP);
    char value[64];
    struct job job;

    (void)snprintf(value, sizeof(value), HERE "%u", peer_port(proxy));
    ck_assert_int_eq(setenv("http_proxy", value, 1), 0);
    ck_assert_int_eq(setenv("ALL_PROXY", value, 1), 0);
    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = get(url);
    expect_code(job, CF_OK);
    ck_assert_str_eq(job.reply->body, "hi");
    cf_client_reply_free(job.reply);
    ck_assert_int_eq(peer_accepted(proxy), 0);
    peer_free(proxy);
}
END_TEST

START_TEST(do_refuses_headers_that_would_forge)
{
    static const struct cf_client_header bad[] = {
        {"X-A", "b\r\nX-C: d"},
        {"X-A", "b\nc"},
        {"X A", "b"},
        {"X-A:", "b"},
        {"", "b"},
        {"X-A\r\nB", "c"},
        {"Host", "b"},
        {"content-length", "5"},
        {"Transfer-Encoding", "chunked"},
    };

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct job job = do_request(
            (struct cf_client_request){.url = url, .headers = &bad[i], .n_headers = 1}, NULL);

        ck_assert_msg(job.code == CF_EINVAL, "%s: %s", bad[i].name, bad[i].value);
    }
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

/* Redirects */

#define REDIRECT(to) "HTTP/1.1 302 Found\r\nLocation: " to "\r\nContent-Length: 0\r\n\r\n"

START_TEST(do_gives_a_redirect_back_unless_told_to_follow)
{
    struct job job;

    use_peer(REDIRECT("/elsewhere"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 0});
    job = get(url);
    expect_code(job, CF_OK);
    ck_assert_int_eq(job.reply->status, 302);
    cf_client_reply_free(job.reply);
    ck_assert_int_eq(peer_requests(peer), 1);
}
END_TEST

START_TEST(do_follows_no_more_than_so_often)
{
    struct job job;

    use_peer(REDIRECT("/again"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 3});
    job = get(url);
    expect_code(job, CF_ELIMIT);
    ck_assert_int_eq(peer_requests(peer), 4);
    ck_assert_int_eq(peer_accepted(peer), 1);
}
END_TEST

/* Follow to another port, with credentials on the way. */
START_TEST(do_follows_without_credentials_to_elsewhere)
{
    struct cf_client_header headers[] = {{"Authorization", "Bearer x"}, {"X-A", "b"}};
    struct peer *target = peer_new(OK_REPLY, PEER_KEEP);
    char rules[128];
    char reply[160];
    struct job job;

    (void)snprintf(reply, sizeof(reply), REDIRECT(HERE "%u/new"), peer_port(target));
    use_peer(reply, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), HERE "%u " HERE "%u", peer_port(peer), peer_port(target));
    use_client((struct cf_client_options){.allow = rules, .redirects_max = 1});
    job = do_request((struct cf_client_request){.url = url, .headers = headers, .n_headers = 2},
                     NULL);
    expect_code(job, CF_OK);
    ck_assert_str_eq(job.reply->body, "hi");
    ck_assert_ptr_nonnull(strstr(job.reply->url, "/new"));
    cf_client_reply_free(job.reply);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "Authorization"));
    ck_assert_ptr_null(strstr(peer_request(target), "Authorization"));
    ck_assert_ptr_nonnull(strstr(peer_request(target), "X-A: b"));
    peer_free(target);
}
END_TEST

START_TEST(do_follows_nowhere_that_no_rule_allows)
{
    static const char *const replies[] = {
        REDIRECT("http://169.254.169.254/"), REDIRECT("file:///etc/passwd"),
        REDIRECT("http://localhost:" PEER_PORT "/"), REDIRECT("http://127.0.0.1:1/")};

    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        char rules[96];
        struct job job;

        use_peer(replies[i], PEER_KEEP);
        (void)snprintf(rules, sizeof(rules), "* *:%u " HERE "%u", peer_port(peer), peer_port(peer));
        use_client((struct cf_client_options){.allow = rules, .redirects_max = 5});
        job = get(url);
        ck_assert_msg(job.code == CF_EINVAL || (i == 1 && job.code == CF_OK), "%s: %s", replies[i],
                      job.err.msg);
        ck_assert_int_eq(peer_requests(peer), 1);
        if (job.code == CF_OK) {
            ck_assert_int_eq(job.reply->status, 302);
            cf_client_reply_free(job.reply);
        }
        cf_client_free(client);
        peer_free(peer);
    }
    client = NULL;
    peer = NULL;
}
END_TEST

Suite *suite_client_rules(void)
{
    Suite *suite = suite_create("client_rules");
    TCase *tc = add_client_case(suite, "rules");

    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, do_refuses_what_is_no_url_for_it);
    tcase_add_test(tc, do_refuses_what_is_not_public);
    tcase_add_test(tc, do_rules_hold_scheme_host_and_port);
    tcase_add_test(tc, do_name_may_reach_a_network_that_is_allowed);
    tcase_add_test(tc, do_name_may_not_reach_an_address_of_a_rule);
    tcase_add_test(tc, do_ignores_a_proxy_of_the_environment);
    tcase_add_test(tc, do_refuses_headers_that_would_forge);

    tc = add_client_case(suite, "redirects");
    tcase_add_test(tc, do_gives_a_redirect_back_unless_told_to_follow);
    tcase_add_test(tc, do_follows_no_more_than_so_often);
    tcase_add_test(tc, do_follows_without_credentials_to_elsewhere);
    tcase_add_test(tc, do_follows_nowhere_that_no_rule_allows);
    return suite;
}
