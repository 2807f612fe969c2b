/* SPDX-License-Identifier: MIT */
/* The settings of a connection. Input: a byte, how many hosts to skip, and a URL or conninfo, whose
 * hosts are addresses: names would be asked for. */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/pg/pg_private.h"
#include "kit.h"

static const char *value_of(const PQconninfoOption *parsed, const char *keyword)
{
    for (; parsed->keyword != NULL; parsed++) {
        if (strcmp(parsed->keyword, keyword) == 0) {
            return parsed->val;
        }
    }
    return NULL;
}

static bool is_set(const PQconninfoOption *parsed, const char *keyword)
{
    const char *value = value_of(parsed, keyword);

    return value != NULL && value[0] != '\0';
}

/* Whether each of the comma-separated hosts is an address, a socket's directory, or nothing. */
static bool are_addresses(const char *hosts)
{
    char *list = strdup(hosts != NULL ? hosts : "");
    char *rest = list;
    char *host;
    bool are = true;

    FUZZ_CHECK(list != NULL);
    while ((host = strsep(&rest, ",")) != NULL) {
        struct in6_addr address;

        are = are &&
              (host[0] == '\0' || host[0] == '/' || host[0] == '@' ||
               inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1);
    }
    free(list);
    return are;
}

/* The value that libpq would take, which is the last, and how often it is given. */
static const char *setting_of(const struct cf__pg_settings *settings, const char *keyword,
                              unsigned *count)
{
    const char *value = NULL;

    *count = 0;
    for (size_t i = 0; settings->keywords[i] != NULL; i++) {
        FUZZ_CHECK(settings->values[i] != NULL);
        if (strcmp(settings->keywords[i], keyword) == 0) {
            value = settings->values[i];
            *count += 1;
        }
    }
    return value;
}

static size_t count_entries(const char *list)
{
    size_t n = 1;

    for (; *list != '\0'; list++) {
        n += *list == ',';
    }
    return n;
}

/* As many entries as libpq takes: of the addresses, else of the hosts, else of the ports. */
static size_t count_hosts(const PQconninfoOption *parsed)
{
    static const char *const lists[] = {"hostaddr", "host", "port"};

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        if (is_set(parsed, lists[i])) {
            return count_entries(value_of(parsed, lists[i]));
        }
    }
    return 1;
}

/* `list` is `of` from its entry `first` on, round and round. */
static bool is_rotation(const char *list, const char *of, size_t first)
{
    size_t size = strlen(of);
    const char *at = of;

    for (; first > 0; first--) {
        at += strcspn(at, ",") + 1;
    }
    if (at == of) {
        return strcmp(list, of) == 0;
    }
    return strlen(list) == size && strncmp(list, at, strlen(at)) == 0 && list[strlen(at)] == ',' &&
           strncmp(list + strlen(at) + 1, of, (size_t)(at - of) - 1) == 0;
}

/* What was asked for is there, once, but for what is ours. */
static void check_settings(const PQconninfoOption *parsed, unsigned skip,
                           const struct cf__pg_settings *settings)
{
    static const char *const lists[] = {"host", "hostaddr", "port"};
    size_t n_hosts = count_hosts(parsed);
    unsigned count;

    FUZZ_CHECK(strcmp(setting_of(settings, "gssencmode", &count), "disable") == 0 && count == 1);
    FUZZ_CHECK(setting_of(settings, "client_encoding", &count) != NULL && count >= 1);
    FUZZ_CHECK(setting_of(settings, "tcp_user_timeout", &count) != NULL && count >= 1);
    for (; parsed->keyword != NULL; parsed++) {
        const char *value = setting_of(settings, parsed->keyword, &count);
        bool is_list = false;
        size_t first;

        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
            is_list = is_list || strcmp(parsed->keyword, lists[i]) == 0;
        }
        if (!is_set(parsed, parsed->keyword) || strcmp(parsed->keyword, "gssencmode") == 0 ||
            strcmp(parsed->keyword, "fallback_application_name") == 0) {
            continue;
        }
        FUZZ_CHECK(value != NULL && count == 1);
        first = is_list && count_entries(parsed->val) == n_hosts ? skip % n_hosts : 0;
        FUZZ_CHECK(is_rotation(value, parsed->val, first));
    }
}

static void forget_environment(void)
{
    (void)unsetenv("PGHOST");
    (void)unsetenv("PGHOSTADDR");
    (void)unsetenv("PGPORT");
    (void)unsetenv("PGSERVICE");
}

FUZZ_TARGET(conninfo)
{
    unsigned skip = size > 0 ? data[0] % 8 : 0;
    char *url = fuzz_string(size > 0 ? data + 1 : data, size > 0 ? size - 1 : 0);
    PQconninfoOption *parsed = PQconninfoParse(url, NULL);
    struct cf_pg pg = {.options = {.url = url, .application_name = "fuzz"}};
    struct cf__pg_settings settings;
    struct cf_err err = {.msg = ""};
    enum cf_code code;
    bool good = url[0] == '\0' || (parsed != NULL && !is_set(parsed, "service"));

    forget_environment();
    code = cf_pg_url_check(url, &err);
    FUZZ_CHECK(code != CF_OK || good);
    FUZZ_CHECK(code == CF_OK || !good || is_set(parsed, "port"));
    good = code == CF_OK;
    FUZZ_CHECK(!fuzz_has_control(err.msg, strlen(err.msg)));
    if (good && parsed != NULL && are_addresses(value_of(parsed, "host"))) {
        FUZZ_CHECK(cf__pg_settings_init(NULL, &pg, skip, &settings, &err) == CF_OK);
        check_settings(parsed, skip, &settings);
        cf__pg_settings_fini(&settings);
    }
    PQconninfoFree(parsed);
    free(url);
    return 0;
}
