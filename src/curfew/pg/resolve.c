/* SPDX-License-Identifier: MIT */
/* The settings of a connection: the user's, ours where the user said nothing, and addresses for
 * names.
 *
 * libpq would resolve names itself, in PQconnectStart(), and block the loop for as long as the name
 * server likes. So names are resolved in a lane and passed on as addresses (hostaddr beside host,
 * which certificates are checked against), one entry for each address, so that libpq tries them all
 * as it would have. Done anew for each attempt, because addresses change.
 *
 * All entries share the time of one attempt, and libpq would spend it on the first if that is
 * silent. So an attempt that follows failed ones begins further down the list, and goes on at its
 * head. */
#include "curfew/pg/pg_private.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/lane.h>

/* Entries of a host list, after each name was replaced by its addresses. */
#define HOSTS_MAX 32

/* Bytes of such a list. */
#define LIST_SIZE 4096

/* What is set unless the user did. gssencmode is always ours:
 * its library crashes without memory. */
static const struct {
    const char *keyword;
    const char *value;
} ours[] = {
    {"keepalives_idle", "5"},     {"keepalives_interval", "2"}, {"keepalives_count", "3"},
    {"tcp_user_timeout", "6000"}, {"client_encoding", "UTF8"},
};

#define N_OURS (sizeof(ours) / sizeof(ours[0]))

/* What is behind all others: the application's name, and the NULL that ends them. */
#define N_LAST 2

/* Three lists with an entry an address, as libpq wants them. */
struct hosts {
    char host[LIST_SIZE];
    char hostaddr[LIST_SIZE];
    char port[LIST_SIZE];
    size_t count;
    bool too_many; /* More than HOSTS_MAX. */
    bool too_long; /* A list does not fit. */
};

/* A job of the lane. Owns all it holds. */
struct resolution {
    char *host; /* Comma-separated, as given. */
    char *port;
    struct hosts hosts;
    int failed; /* Of getaddrinfo, or 0. */
    char failed_name[256];
};

/* Internal helpers: lists */

static bool append(char *list, size_t count, const char *entry, size_t size)
{
    size_t n = strlen(list);

    if (n + size + 2 > LIST_SIZE) {
        return false;
    }
    if (count > 0) {
        list[n++] = ',';
    }
    memcpy(list + n, entry, size);
    list[n + size] = '\0';
    return true;
}

static void add(struct hosts *hosts, const char *host, size_t host_size, const char *address,
                const char *port, size_t port_size)
{
    if (hosts->count == HOSTS_MAX) {
        hosts->too_many = true;
    } else if (!append(hosts->host, hosts->count, host, host_size) ||
               !append(hosts->hostaddr, hosts->count, address, strlen(address)) ||
               !append(hosts->port, hosts->count, port, port_size)) {
        hosts->too_long = true;
    } else {
        hosts->count++;
    }
}

/* Whether the entry needs no name server: a socket's directory, an address, or nothing. */
static bool is_plain(const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];

    return name[0] == '\0' || name[0] == '/' || name[0] == '@' ||
           inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

/* Internal helpers: the lane */

static void resolve_one(struct resolution *job, const char *name, const char *port,
                        size_t port_size)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char address[NI_MAXHOST];
    int failed = getaddrinfo(name, NULL, &hints, &list);

    if (failed != 0) {
        job->failed = failed;
        (void)snprintf(job->failed_name, sizeof(job->failed_name), "%.*s",
                       (int)sizeof(job->failed_name) - 1, name);
        return;
    }
    for (struct addrinfo *at = list; at != NULL; at = at->ai_next) {
        if (getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address), NULL, 0,
                        NI_NUMERICHOST) == 0) {
            add(&job->hosts, name, strlen(name), address, port, port_size);
        }
    }
    freeaddrinfo(list);
}

/* Walk both lists; a single port serves all hosts, as in libpq. */
static void resolve(void *arg)
{
    struct resolution *job = arg;
    const char *host = job->host;
    const char *port = job->port;

    for (;;) {
        size_t host_size = strcspn(host, ",");
        size_t port_size = strcspn(port, ",");
        char name[NI_MAXHOST];

        (void)snprintf(name, sizeof(name), "%.*s", (int)host_size, host);
        if (is_plain(name)) {
            bool is_address = name[0] != '\0' && name[0] != '/' && name[0] != '@';

            add(&job->hosts, name, strlen(name), is_address ? name : "", port, port_size);
        } else {
            resolve_one(job, name, port, port_size);
        }
        if (host[host_size] == '\0') {
            return;
        }
        host += host_size + 1;
        port += port[port_size] == ',' ? port_size + 1 : 0;
    }
}

static void resolution_free(void *arg)
{
    struct resolution *job = arg;

    if (job != NULL) {
        free(job->host);
        free(job->port);
        free(job);
    }
}

static struct resolution *resolution_new(const char *host, const char *port)
{
    struct resolution *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        return NULL;
    }
    job->host = strdup(host);
    job->port = strdup(port);
    if (job->host == NULL || job->port == NULL) {
        resolution_free(job);
        return NULL;
    }
    return job;
}

/* Internal helpers: settings */

static const char *parsed_value(const PQconninfoOption *parsed, const char *keyword)
{
    for (; parsed != NULL && parsed->keyword != NULL; parsed++) {
        if (strcmp(parsed->keyword, keyword) == 0 && parsed->val != NULL &&
            parsed->val[0] != '\0') {
            return parsed->val;
        }
    }
    return NULL;
}

/* As libpq would find it: the URL's, else the environment's. */
static const char *effective(const PQconninfoOption *parsed, const char *keyword, const char *env)
{
    const char *value = parsed_value(parsed, keyword);

    return value != NULL ? value : getenv(env);
}

static bool needs_names(const char *host)
{
    char name[NI_MAXHOST];

    for (;;) {
        size_t size = strcspn(host, ",");

        (void)snprintf(name, sizeof(name), "%.*s", (int)size, host);
        if (!is_plain(name)) {
            return true;
        }
        if (host[size] == '\0') {
            return false;
        }
        host += size + 1;
    }
}

/* Fill host, hostaddr and port of *settings if there is a name among the hosts. */
static enum cf_code resolve_hosts(struct cf_ctx *ctx, struct cf_pg *pg,
                                  struct cf__pg_settings *settings, struct cf_err *err)
{
    const char *host = effective(settings->parsed, "host", "PGHOST");
    const char *port = effective(settings->parsed, "port", "PGPORT");
    struct resolution *job;
    enum cf_code code;

    if (host == NULL || effective(settings->parsed, "hostaddr", "PGHOSTADDR") != NULL ||
        !needs_names(host)) {
        return CF_OK;
    }
    job = resolution_new(host, port != NULL ? port : "");
    if (job == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to resolve %s", host);
    }
    code = cf_lane_run(ctx, pg->resolve_lane, resolve, resolution_free, job, err);
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "resolve %s", host);
    }
    if (job->hosts.too_many) {
        code = cf_err_set(err, CF_EINVAL, "more than %d addresses for %s", HOSTS_MAX, host);
    } else if (job->hosts.too_long) {
        code =
            cf_err_set(err, CF_EINVAL, "more than %d bytes of addresses for %s", LIST_SIZE, host);
    } else if (job->hosts.count == 0) {
        code = cf_err_set(err, CF_EUNAVAIL, "resolve %s: %s", job->failed_name,
                          gai_strerror(job->failed));
    } else {
        settings->host = strdup(job->hosts.host);
        settings->hostaddr = strdup(job->hosts.hostaddr);
        settings->port = strdup(job->hosts.port);
        if (settings->host == NULL || settings->hostaddr == NULL || settings->port == NULL) {
            code = cf_err_set(err, CF_ENOMEM, "no memory to resolve %s", host);
        }
    }
    resolution_free(job);
    return code;
}

/* Entries of a list. */
static size_t count_entries(const char *list)
{
    size_t n = 1;

    for (; *list != '\0'; list++) {
        n += *list == ',';
    }
    return n;
}

/* The list from its entry `first` (0 < first < its entries) to its end, and then what is before.
 * NULL: no memory. */
static char *rotate(const char *list, size_t first)
{
    size_t size = strlen(list) + 1;
    char *rotated = malloc(size);
    const char *at = list;

    for (; first > 0; first--) {
        at += strcspn(at, ",") + 1;
    }
    if (rotated != NULL) {
        (void)snprintf(rotated, size, "%s,%.*s", at, (int)(at - list) - 1, list);
    }
    return rotated;
}

/* Have the lists begin with their entry `skip`, round and round. What has not as many entries as
 * there are hosts stays: a single port serves all, and libpq refuses the rest. */
static enum cf_code skip_entries(struct cf__pg_settings *settings, unsigned skip,
                                 struct cf_err *err)
{
    const struct {
        char **field;
        const char *list;
    } lists[] = {
        {&settings->hostaddr, effective(settings->parsed, "hostaddr", "PGHOSTADDR")},
        {&settings->host, effective(settings->parsed, "host", "PGHOST")},
        {&settings->port, effective(settings->parsed, "port", "PGPORT")},
    };
    size_t count = 0; /* As in libpq: of the addresses if there are any. */

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const char *list = *lists[i].field != NULL ? *lists[i].field : lists[i].list;
        char *rotated;

        if (list == NULL) {
            continue;
        }
        count = count > 0 ? count : count_entries(list);
        if (skip % count == 0 || count_entries(list) != count) {
            continue;
        }
        rotated = rotate(list, skip % count);
        if (rotated == NULL) {
            return cf_err_set(err, CF_ENOMEM, "no memory for a connection");
        }
        free(*lists[i].field);
        *lists[i].field = rotated;
    }
    return CF_OK;
}

static void put(struct cf__pg_settings *settings, size_t *n, const char *keyword, const char *value)
{
    if (value != NULL) {
        settings->keywords[*n] = keyword;
        settings->values[*n] = value;
        *n += 1;
    }
}

/* The arrays: what was parsed, but for what we replace, and then ours. */
static enum cf_code fill(struct cf_pg *pg, struct cf__pg_settings *settings, struct cf_err *err)
{
    const struct {
        const char *keyword;
        const char *value; /* NULL: what was parsed stays. */
    } replaced[] = {
        {"gssencmode", "disable"},
        {"host", settings->host},
        {"hostaddr", settings->hostaddr},
        {"port", settings->port},
    };
    size_t n_parsed = 0;
    size_t n_max;
    size_t n = 0;

    while (settings->parsed != NULL && settings->parsed[n_parsed].keyword != NULL) {
        n_parsed++;
    }
    n_max = n_parsed + N_OURS + sizeof(replaced) / sizeof(replaced[0]) + N_LAST;
    settings->keywords = calloc(n_max, sizeof(char *));
    settings->values = calloc(n_max, sizeof(char *));
    if (settings->keywords == NULL || settings->values == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a connection");
    }
    for (size_t i = 0; i < n_parsed; i++) {
        bool is_replaced = false;

        for (size_t j = 0; j < sizeof(replaced) / sizeof(replaced[0]); j++) {
            is_replaced =
                is_replaced || (replaced[j].value != NULL &&
                                strcmp(settings->parsed[i].keyword, replaced[j].keyword) == 0);
        }
        if (!is_replaced) {
            put(settings, &n, settings->parsed[i].keyword, settings->parsed[i].val);
        }
    }
    for (size_t i = 0; i < N_OURS; i++) {
        if (parsed_value(settings->parsed, ours[i].keyword) == NULL) {
            put(settings, &n, ours[i].keyword, ours[i].value);
        }
    }
    for (size_t i = 0; i < sizeof(replaced) / sizeof(replaced[0]); i++) {
        put(settings, &n, replaced[i].keyword, replaced[i].value);
    }
    put(settings, &n, "fallback_application_name", pg->options.application_name);
    return CF_OK;
}

static enum cf_code parse(const char *url, PQconninfoOption **out, struct cf_err *err)
{
    char *why = NULL;
    enum cf_code code;

    *out = NULL;
    if (url[0] == '\0') {
        return CF_OK;
    }
    *out = PQconninfoParse(url, &why);
    if (*out != NULL) {
        return CF_OK;
    }
    /* libpq's text may repeat the URL, which may hold the password: it is not passed on. That there
     * was no memory, it says in this one line, or by saying nothing. */
    code = why != NULL && strcmp(why, "out of memory\n") != 0
               ? cf_err_set(err, CF_EINVAL,
                            "the database URL cannot be read: should be "
                            "postgresql://user@host:port/database or key=value pairs")
               : cf_err_set(err, CF_ENOMEM, "no memory to read the database URL");
    PQfreemem(why);
    return code;
}

/* One entry of a list of ports, as libpq reads it; an empty one is the default. */
static bool is_port(const char *entry, size_t size)
{
    static const char spaces[] = " \t\n\v\f\r";
    char *end;
    long port = strtol(entry, &end, 10);

    return size == 0 || (end > entry && end + strspn(end, spaces) == entry + size && port >= 1 &&
                         port <= UINT16_MAX);
}

/* One port, or one for each host; as in libpq, for each address if there are any. */
static bool are_ports(const char *ports, const char *hostaddr, const char *host)
{
    const char *hosts = hostaddr != NULL && hostaddr[0] != '\0' ? hostaddr
                        : host != NULL                          ? host
                                                                : "";
    size_t n = count_entries(ports);
    bool are = n == 1 || n == count_entries(hosts);

    for (; are && n > 0; n--) {
        size_t size = strcspn(ports, ",");

        are = is_port(ports, size);
        ports += size + 1;
    }
    return are;
}

/* Life cycle */

enum cf_code cf__pg_settings_init(struct cf_ctx *ctx, struct cf_pg *pg, unsigned skip,
                                  struct cf__pg_settings *out, struct cf_err *err)
{
    struct cf__pg_settings settings = {.host = NULL};
    enum cf_code code;

    code = parse(pg->options.url, &settings.parsed, err);
    if (code == CF_OK) {
        code = resolve_hosts(ctx, pg, &settings, err);
    }
    if (code == CF_OK) {
        code = skip_entries(&settings, skip, err);
    }
    if (code == CF_OK) {
        code = fill(pg, &settings, err);
    }
    if (code != CF_OK) {
        cf__pg_settings_fini(&settings);
        return code;
    }
    *out = settings;
    return CF_OK;
}

void cf__pg_settings_fini(struct cf__pg_settings *settings)
{
    free(settings->keywords);
    free(settings->values);
    free(settings->host);
    free(settings->hostaddr);
    free(settings->port);
    PQconninfoFree(settings->parsed);
}

/* Queries */

/* Of a URL whose password has a '/' that is not quoted, libpq takes the password for the port: so
 * the port is not repeated. */
enum cf_code cf_pg_url_check(const char *url, struct cf_err *err)
{
    PQconninfoOption *parsed;
    enum cf_code code = parse(url != NULL ? url : "", &parsed, err);
    bool is_of_url = parsed_value(parsed, "service") != NULL;
    const char *port = effective(parsed, "port", "PGPORT");

    if (code == CF_OK && effective(parsed, "service", "PGSERVICE") != NULL) {
        /* Its host would be read by libpq only, which would resolve it on the loop. */
        code = cf_err_set(err, CF_EINVAL,
                          "%sservice files are not served: should be host, port and "
                          "dbname, in the URL or as PGHOST, PGPORT, PGDATABASE",
                          is_of_url ? "" : "PGSERVICE: ");
    } else if (code == CF_OK && port != NULL &&
               !are_ports(port, effective(parsed, "hostaddr", "PGHOSTADDR"),
                          effective(parsed, "host", "PGHOST"))) {
        code = cf_err_set(
            err, CF_EINVAL, "%s: should be a number from 1 to 65535, or one for each host",
            parsed_value(parsed, "port") != NULL ? "the port in the database URL" : "PGPORT");
    }
    PQconninfoFree(parsed);
    return code;
}
