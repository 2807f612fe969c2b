/* SPDX-License-Identifier: MIT */
/* What the HTTP client may reach: see client.h.
 *
 * Rules of hosts and networks are looked through from the start: they are written by hand, and few.
 * What is public is told by what is not: the networks that IANA set aside (RFC 6890 and after), and
 * those through which IPv6 leads to any address of IPv4. */
#include <stdlib.h>
#include <string.h>

#include "curfew/http/client_private.h"
#include "curfew/http/host.h"
#include "curfew/http/words.h"

/* Constants and types */

#define SEPARATORS ", \t\r\n"
#define QUOTED_MAX 64
#define PORT_MAX 65535

#define NOT_PUBLIC                                                                                 \
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "    \
    "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "     \
    "224.0.0.0/4 240.0.0.0/4 "                                                                     \
    "::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 fc00::/7 "       \
    "fe80::/10 fec0::/10 ff00::/8"

/* "*" alone is the pattern "", which every host ends with. */
struct rule {
    const char *scheme; /* Static. NULL: http and https. */
    char *host;         /* Owned. Of a wildcard what a host has to end with: ".example.org". */
    bool is_wildcard;
    bool is_address;
    unsigned port; /* 0: the scheme's. */
};

struct cf__rules {
    struct cf__networks *not_public;
    struct cf__networks *networks; /* Not public, and allowed. */
    size_t n;
    struct rule list[];
};

/* Internal helpers: reading */

static enum cf_code bad_rule(const char *text, size_t size, struct cf_err *err)
{
    return cf_err_set(err, CF_EINVAL,
                      "\"%.*s\" is no rule: should be like api.example.org, "
                      "https://*.example.org:8443, * or 10.0.0.0/8",
                      (int)(size < QUOTED_MAX ? size : QUOTED_MAX), text);
}

/* Skip the scheme if there is one of HTTP. Any other is no host, and is found to be none. */
static const char *take_scheme(const char **at, const char *end)
{
    static const char *const schemes[] = {"http", "https"};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t size = strlen(schemes[i]);

        if ((size_t)(end - *at) > size + 3 && strncmp(*at, schemes[i], size) == 0 &&
            strncmp(*at + size, "://", 3) == 0) {
            *at += size + 3;
            return schemes[i];
        }
    }
    return NULL;
}

/* Cut a port off the end. False: what stands there is none. */
static bool take_port(const char *at, const char **end, unsigned *out)
{
    const char *colon = *end;
    unsigned port = 0;

    while (colon > at && colon[-1] >= '0' && colon[-1] <= '9') {
        colon--;
    }
    *out = 0;
    if (colon == at || colon[-1] != ':' || (at[0] == '[' && (*end)[-1] == ']')) {
        return true; /* There is none. */
    }
    for (const char *digit = colon; digit < *end; digit++) {
        port = port <= PORT_MAX ? port * 10 + (unsigned)(*digit - '0') : port;
    }
    *end = colon - 1;
    *out = port;
    return port > 0 && port <= PORT_MAX;
}

/* The host of a rule, which is what is between `at` and `end`. */
static bool read_host(const char *at, const char *end, struct rule *out)
{
    struct cf__address address;

    if (end - at > 2 && at[0] == '[' && end[-1] == ']') {
        at++;
        end--;
        out->is_address = true;
    }
    if (at < end && at[0] == '*' && (end - at == 1 || at[1] == '.')) {
        at++;
        out->is_wildcard = true;
    }
    if (cf__address_read(at, (size_t)(end - at), &address)) {
        out->is_address = true;
    } else if (out->is_address || (at < end && !cf__host_is_name(at, (size_t)(end - at))) ||
               (at == end && !out->is_wildcard)) {
        return false;
    }
    out->host = strndup(at, (size_t)(end - at));
    return true;
}

static enum cf_code read_rule(const char *text, size_t size, struct rule *out, struct cf_err *err)
{
    const char *at = text;
    const char *end = text + size;
    struct rule rule = {.scheme = take_scheme(&at, end)};

    if (!take_port(at, &end, &rule.port) || !read_host(at, end, &rule)) {
        return bad_rule(text, size, err);
    }
    if (rule.host == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a rule");
    }
    *out = rule;
    return CF_OK;
}

/* A slash that is not of a scheme. */
static bool is_network(const char *text, size_t size)
{
    const char *slash = memchr(text, '/', size);

    return slash != NULL && memmem(text, size, "://", 3) == NULL;
}

/* Every word of `text` is a rule or, put together in `networks`, a network. */
static enum cf_code read_rules(const char *text, struct cf__rules *rules, char *networks,
                               struct cf_err *err)
{
    char *end = networks;
    const char *word;
    size_t size;

    *end = '\0';
    while (cf__words_next(&text, SEPARATORS, &word, &size)) {
        if (is_network(word, size)) {
            memcpy(end, word, size);
            end += size;
            *end++ = ' ';
            *end = '\0';
        } else {
            enum cf_code code = read_rule(word, size, &rules->list[rules->n], err);

            if (code != CF_OK) {
                return code;
            }
            rules->n++;
        }
    }
    return CF_OK;
}

/* Internal helpers: asking */

static bool port_matches(const struct rule *rule, const char *scheme, unsigned port)
{
    unsigned usual = strcmp(scheme, "https") == 0 ? 443 : 80;

    return port == (rule->port != 0 ? rule->port : usual);
}

static bool host_matches(const struct rule *rule, const char *host, size_t size)
{
    size_t wanted = strlen(rule->host);

    if (rule->is_wildcard) {
        return size > wanted && strncasecmp(host + size - wanted, rule->host, wanted) == 0;
    }
    if (rule->is_address) {
        struct cf__address own;
        struct cf__address other;

        return cf__address_read(host, size, &other) && cf__address_read(rule->host, wanted, &own) &&
               memcmp(&own, &other, sizeof(own)) == 0;
    }
    return size == wanted && strncasecmp(host, rule->host, size) == 0;
}

/* Life cycle */

enum cf_code cf__rules_new(const char *text, struct cf__rules **out, struct cf_err *err)
{
    struct cf__rules *rules =
        calloc(1, sizeof(*rules) + cf__words_count(text, SEPARATORS) * sizeof(rules->list[0]));
    char *networks = malloc(strlen(text) + 2);
    enum cf_code code;

    if (rules == NULL || networks == NULL) {
        free(rules);
        free(networks);
        return cf_err_set(err, CF_ENOMEM, "no memory for rules");
    }
    code = read_rules(text, rules, networks, err);
    if (code == CF_OK) {
        code = cf__networks_new(networks, &rules->networks, err);
    }
    if (code == CF_OK) {
        code = cf__networks_new(NOT_PUBLIC, &rules->not_public, err);
    }
    free(networks);
    if (code != CF_OK) {
        cf__rules_free(rules);
        return code;
    }
    *out = rules;
    return CF_OK;
}

void cf__rules_free(struct cf__rules *rules)
{
    if (rules == NULL) {
        return;
    }
    for (size_t i = 0; i < rules->n; i++) {
        free(rules->list[i].host);
    }
    cf__networks_free(rules->networks);
    cf__networks_free(rules->not_public);
    free(rules);
}

/* Queries */

enum cf__allowed cf__rules_allow_host(const struct cf__rules *rules, const char *scheme,
                                      const char *host, unsigned port)
{
    size_t size = strlen(host);
    enum cf__allowed allowed = CF__REFUSED;

    if (size > 1 && host[size - 1] == '.') {
        size--; /* The root, which every name ends with, said. */
    }
    for (size_t i = 0; i < rules->n; i++) {
        const struct rule *rule = &rules->list[i];

        if ((rule->scheme == NULL || strcmp(rule->scheme, scheme) == 0) &&
            port_matches(rule, scheme, port) && host_matches(rule, host, size)) {
            if (rule->is_address) {
                return CF__ALLOWED_ADDRESS;
            }
            allowed = CF__ALLOWED;
        }
    }
    return allowed;
}

bool cf__rules_allow_https(const struct cf__rules *rules)
{
    for (size_t i = 0; i < rules->n; i++) {
        if (rules->list[i].scheme == NULL || strcmp(rules->list[i].scheme, "https") == 0) {
            return true;
        }
    }
    return false;
}

bool cf__rules_allow_address(const struct cf__rules *rules, const struct cf__address *address)
{
    return !cf__networks_have(rules->not_public, address) ||
           cf__networks_have(rules->networks, address);
}

enum cf_code cf_client_allow_check(const char *allow, struct cf_err *err)
{
    struct cf__rules *rules = NULL;
    enum cf_code code = cf__rules_new(allow != NULL ? allow : "", &rules, err);

    cf__rules_free(rules);
    return code;
}
