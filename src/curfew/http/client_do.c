/* SPDX-License-Identifier: MIT */
/* One request of the HTTP client: see client.h.
 *
 * A request is one leg or, where it is redirected, several. Each leg reads its URL with libcurl's
 * own parser and hands libcurl what came out, so that no second reading can find another host in
 * it; holds the host against the rules; resolves its name in the lane and pins the addresses,
 * because libcurl's resolver would have a thread that an aborted transfer has to wait for; and
 * looks at the address once more where the socket opens. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/lane.h>
#include <curfew/trace.h>

#include "curfew/http/client_private.h"
#include "curfew/http/field.h"

/* Constants and types */

#define NAME_MAX 255 /* Of a host, in bytes: RFC 1035. */
#define ORIGIN_SIZE (NAME_MAX + 32)
#define PINNED_SIZE 2048 /* Text of all addresses of a name; more are left out. */
#define BODY_SIZE_FIRST 4096
#define MARGIN_MIN_NS (5 * CF_MS) /* Of the budget, kept for the way back, */
#define MARGIN_DIVISOR 50         /* and at least this part. */

/* Why libcurl was told to stop. */
enum stop {
    STOP_NONE,
    STOP_ADDRESS, /* No address that it found is allowed. */
    STOP_BODY,
    STOP_HEAD,
    STOP_MEMORY,
};

struct reply {
    struct cf_client_reply public;
    CURL *easy; /* Has the headers. */
    char *own_url;
    char *own_body;
    size_t capacity;
};

struct leg {
    struct cf__client_call call;
    struct cf_client *client;
    const struct cf_client_request *request;
    char *origin;   /* The first leg's, of ORIGIN_SIZE; "" before it is known. */
    bool is_origin; /* This leg goes there, and so may credentials and traces. */

    CURLU *url;
    char *scheme; /* Of libcurl, as the two below. */
    char *host;   /* Without brackets. */
    char *port;
    unsigned port_number;
    enum cf__allowed allowed;

    struct curl_slist *headers;
    struct curl_slist *pinned;
    struct reply *reply;
    size_t head_size;
    bool head_ended; /* With an empty line. */
    enum stop stop;
    char why[CURL_ERROR_SIZE];
};

/* What the caller's headers have of those that we would add. */
struct given {
    bool type;
    bool timeout;
    bool traceparent;
    bool tracestate;
};

/* A job of the lane. */
struct resolution {
    char host[NAME_MAX + 1];
    char addresses[PINNED_SIZE];
    int failed; /* Of getaddrinfo, or 0. */
};

/* Internal helpers: the URL */

/* Take a part of the URL; *out is NULL where it has none. False: there is no memory. */
static bool take_part(CURLU *url, CURLUPart which, char **out)
{
    return curl_url_get(url, which, out, CURLU_DEFAULT_PORT) != CURLUE_OUT_OF_MEMORY;
}

static bool has_part(CURLU *url, CURLUPart which, bool *out_has)
{
    char *text = NULL;
    bool ok = take_part(url, which, &text);

    *out_has = *out_has || text != NULL;
    curl_free(text);
    return ok;
}

static bool is_ascii(const char *text)
{
    while (*text != '\0' && (unsigned char)*text < 0x80) {
        text++;
    }
    return *text == '\0';
}

/* "[::1]" -> "::1": how a socket's address and the rules have it. */
static void take_brackets_off(char *host)
{
    size_t size = strlen(host);

    if (size > 2 && host[0] == '[' && host[size - 1] == ']') {
        memmove(host, host + 1, size - 2);
        host[size - 2] = '\0';
    }
}

static void note_origin(struct leg *leg)
{
    char origin[ORIGIN_SIZE];

    (void)snprintf(origin, sizeof(origin), "%s://%s:%s", leg->scheme, leg->host, leg->port);
    if (leg->origin[0] == '\0') {
        memcpy(leg->origin, origin, sizeof(origin));
    }
    leg->is_origin = strcasecmp(leg->origin, origin) == 0;
}

static enum cf_code parse_url(struct leg *leg, const char *text, struct cf_err *err)
{
    CURLUcode bad;

    leg->url = curl_url();
    bad = leg->url != NULL ? curl_url_set(leg->url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME)
                           : CURLUE_OUT_OF_MEMORY;
    if (bad == CURLUE_OUT_OF_MEMORY) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a URL");
    }
    if (bad != CURLUE_OK) {
        return cf_err_set(err, CF_EINVAL, "not a URL: should be like https://api.example.org/path");
    }
    return CF_OK;
}

static enum cf_code read_url(struct leg *leg, const char *text, struct cf_err *err)
{
    bool has_user = false;
    bool has_zone = false;
    enum cf_code code = parse_url(leg, text, err);

    if (code != CF_OK) {
        return code;
    }
    if (!take_part(leg->url, CURLUPART_SCHEME, &leg->scheme) ||
        !take_part(leg->url, CURLUPART_HOST, &leg->host) ||
        !take_part(leg->url, CURLUPART_PORT, &leg->port) ||
        !has_part(leg->url, CURLUPART_USER, &has_user) ||
        !has_part(leg->url, CURLUPART_PASSWORD, &has_user) ||
        !has_part(leg->url, CURLUPART_ZONEID, &has_zone)) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a URL");
    }
    if (leg->scheme == NULL ||
        (strcmp(leg->scheme, "http") != 0 && strcmp(leg->scheme, "https") != 0)) {
        return cf_err_set(err, CF_EINVAL, "the URL's scheme should be http or https");
    }
    if (leg->host == NULL || leg->port == NULL || strlen(leg->host) > NAME_MAX ||
        !is_ascii(leg->host)) {
        return cf_err_set(err, CF_EINVAL, "the URL's host should be a name in ASCII or an address");
    }
    if (has_user) {
        return cf_err_set(err, CF_EINVAL, "a URL should hold no user's name or password");
    }
    if (has_zone) {
        return cf_err_set(err, CF_EINVAL, "a URL should hold no zone of an address");
    }
    take_brackets_off(leg->host);
    leg->port_number = (unsigned)strtoul(leg->port, NULL, 10);
    note_origin(leg);
    return CF_OK;
}

static enum cf_code ask_rules(struct leg *leg, struct cf_err *err)
{
    CF_ASSERT(leg->host != NULL);
    leg->allowed =
        cf__rules_allow_host(leg->client->rules, leg->scheme, leg->host, leg->port_number);
    if (leg->allowed == CF__REFUSED) {
        return cf_err_set(err, CF_EINVAL, "no rule allows %s://%s:%s", leg->scheme, leg->host,
                          leg->port);
    }
    return strcmp(leg->scheme, "https") == 0 ? cf__trust_check(leg->client->trust, err) : CF_OK;
}

/* Internal helpers: the name */

static void resolve(void *arg)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolution *job = arg;
    struct addrinfo *list = NULL;
    size_t used = 0;

    job->failed = getaddrinfo(job->host, NULL, &hints, &list);
    for (struct addrinfo *at = list; job->failed == 0 && at != NULL; at = at->ai_next) {
        bool is_v6 = at->ai_family == AF_INET6;
        char address[NI_MAXHOST];

        if (used + sizeof(address) + 4 > sizeof(job->addresses) ||
            getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address), NULL, 0,
                        NI_NUMERICHOST) != 0 ||
            strchr(address, '%') != NULL) {
            continue;
        }
        used += (size_t)snprintf(job->addresses + used, sizeof(job->addresses) - used, "%s%s%s%s",
                                 used > 0 ? "," : "", is_v6 ? "[" : "", address, is_v6 ? "]" : "");
    }
    if (list != NULL) {
        freeaddrinfo(list);
    }
}

static bool is_address(const char *host)
{
    struct cf__address address;

    return cf__address_read(host, strlen(host), &address);
}

/* Tell libcurl the addresses of the name. "+": for a while, as it would itself. */
static enum cf_code pin(struct leg *leg, const char *addresses, struct cf_err *err)
{
    char entry[NAME_MAX + PINNED_SIZE + 16];

    (void)snprintf(entry, sizeof(entry), "+%s:%s:%s", leg->host, leg->port, addresses);
    leg->pinned = curl_slist_append(NULL, entry);
    return leg->pinned != NULL ? CF_OK : cf_err_set(err, CF_ENOMEM, "no memory for an address");
}

static enum cf_code find_addresses(struct cf_ctx *ctx, struct leg *leg, struct cf_err *err)
{
    struct resolution *job;
    enum cf_code code;

    if (is_address(leg->host)) {
        return CF_OK;
    }
    job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to resolve %s", leg->host);
    }
    (void)snprintf(job->host, sizeof(job->host), "%s", leg->host);
    code = cf_lane_run(ctx, leg->client->resolve_lane, resolve, free, job, err);
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "resolve %s", leg->host);
    }
    if (job->failed != 0 || job->addresses[0] == '\0') {
        code = cf_err_set(err, CF_EUNAVAIL, "resolve %s: %s", leg->host,
                          job->failed != 0 ? gai_strerror(job->failed) : "it has no address");
    } else {
        code = pin(leg, job->addresses, err);
    }
    free(job);
    return code;
}

/* Internal helpers: headers */

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names != NULL; names++) {
        if (strcasecmp(name, *names) == 0) {
            return true;
        }
    }
    return false;
}

/* NULL is allowed: there was no memory for it. */
static enum cf_code add_line(struct leg *leg, const char *line, struct cf_err *err)
{
    struct curl_slist *headers = line != NULL ? curl_slist_append(leg->headers, line) : NULL;

    if (headers == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a header");
    }
    leg->headers = headers;
    return CF_OK;
}

/* libcurl sends lines as they are; and one without a value has to end with a semicolon. */
static enum cf_code add_header(struct leg *leg, const char *name, const char *value,
                               struct cf_err *err)
{
    size_t size = strlen(name) + strlen(value) + 3;
    char *line = malloc(size);
    enum cf_code code;

    if (line != NULL) {
        (void)snprintf(line, size, "%s%s%s", name, value[0] != '\0' ? ": " : ";", value);
    }
    code = add_line(leg, line, err);
    free(line);
    return code;
}

static enum cf_code add_headers_given(struct leg *leg, struct given *given, struct cf_err *err)
{
    /* How the message is delimited, and to whom it goes, is not for the caller to say. */
    static const char *const ours[] = {"Host",       "Content-Length", "Transfer-Encoding",
                                       "Connection", "Expect",         NULL};
    /* And these are for nobody but whom the caller has named. */
    static const char *const theirs[] = {"Authorization", "Cookie",     "Proxy-Authorization",
                                         "traceparent",   "tracestate", NULL};
    enum cf_code code = CF_OK;

    for (size_t i = 0; i < leg->request->n_headers && code == CF_OK; i++) {
        const struct cf_client_header *header = &leg->request->headers[i];

        if (!cf__is_token(header->name, strlen(header->name)) || is_one_of(header->name, ours)) {
            return cf_err_set(err, CF_EINVAL, "\"%.64s\" is no header to send", header->name);
        }
        if (!cf__is_field_value(header->value, strlen(header->value))) {
            return cf_err_set(err, CF_EINVAL, "the header %.64s has a control character",
                              header->name);
        }
        given->type = given->type || strcasecmp(header->name, "Content-Type") == 0;
        given->timeout = given->timeout || strcasecmp(header->name, "Request-Timeout-Ms") == 0;
        given->traceparent = given->traceparent || strcasecmp(header->name, "traceparent") == 0;
        given->tracestate = given->tracestate || strcasecmp(header->name, "tracestate") == 0;
        if (leg->is_origin || !is_one_of(header->name, theirs)) {
            code = add_header(leg, header->name, header->value, err);
        }
    }
    return code;
}

static enum cf_code add_budget(struct cf_ctx *ctx, struct leg *leg, struct cf_err *err)
{
    int64_t left_ns = cf_ctx_remaining_ns(ctx);
    int64_t margin_ns = left_ns / MARGIN_DIVISOR;
    char value[24];

    margin_ns = margin_ns > MARGIN_MIN_NS ? margin_ns : MARGIN_MIN_NS;
    left_ns = left_ns > margin_ns + CF_MS ? left_ns - margin_ns : CF_MS;
    (void)snprintf(value, sizeof(value), "%lld", (long long)(left_ns / CF_MS));
    return add_header(leg, "Request-Timeout-Ms", value, err);
}

/* A tracestate belongs to its traceparent: where the caller has one of his own, neither is ours. */
static enum cf_code add_trace(struct cf_ctx *ctx, struct leg *leg, const struct given *given,
                              struct cf_err *err)
{
    const struct cf_trace *trace = cf_ctx_trace(ctx);
    char traceparent[CF_TRACEPARENT_SIZE];
    struct cf_trace child;
    enum cf_code code;

    if (trace == NULL || given->traceparent || !leg->is_origin) {
        return CF_OK;
    }
    if (!cf__is_field_value(trace->state, strlen(trace->state))) {
        return cf_err_set(err, CF_EINVAL, "the trace's state has a control character");
    }
    cf_trace_child(trace, &child);
    cf_trace_write(&child, traceparent);
    code = add_header(leg, "traceparent", traceparent, err);
    if (code == CF_OK && child.state[0] != '\0' && !given->tracestate) {
        code = add_header(leg, "tracestate", child.state, err);
    }
    return code;
}

static enum cf_code add_headers(struct cf_ctx *ctx, struct leg *leg, struct cf_err *err)
{
    struct given given = {.type = false};
    enum cf_code code = add_headers_given(leg, &given, err);

    if (code == CF_OK && leg->client->options.tells_budget && !given.timeout) {
        code = add_budget(ctx, leg, err);
    }
    if (code == CF_OK && leg->client->options.tells_trace) {
        code = add_trace(ctx, leg, &given, err);
    }
    /* A colon takes away what libcurl would say: that a body is a form's, and that a long one waits
     * a second for the other side to ask for it. */
    if (code == CF_OK && !given.type) {
        code = add_line(leg, "Content-Type:", err);
    }
    if (code == CF_OK && leg->request->body != NULL) {
        code = add_line(leg, "Expect:", err);
    }
    return code;
}

/* Internal helpers: what libcurl calls */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *socket_of)
{
    struct leg *leg = arg;
    struct cf__address address;

    (void)purpose;
    cf__address_of(&socket_of->addr, &address);
    if (leg->allowed != CF__ALLOWED_ADDRESS &&
        !cf__rules_allow_address(leg->client->rules, &address)) {
        leg->stop = STOP_ADDRESS; /* libcurl goes on with the next one. */
        return CURL_SOCKET_BAD;
    }
    return socket(socket_of->family, socket_of->socktype | SOCK_CLOEXEC, socket_of->protocol);
}

static size_t take_head(char *bytes, size_t size, size_t n, void *arg)
{
    struct leg *leg = arg;

    leg->head_ended =
        bytes[0] == '\r' || bytes[0] == '\n' ||
        (leg->head_ended && strncmp(bytes, "HTTP/", size * n < 5 ? size * n : 5) != 0);
    leg->head_size += size * n;
    if (leg->head_size > leg->client->options.head_size_max) {
        leg->stop = STOP_HEAD;
        return 0;
    }
    return size * n;
}

/* Room for `size` bytes of body and their end. */
static bool have_room(struct reply *reply, size_t size)
{
    size_t capacity = reply->capacity > 0 ? reply->capacity : BODY_SIZE_FIRST;
    char *grown;

    while (capacity <= size) {
        capacity *= 2; /* No overflow: the size has a cap. */
    }
    if (capacity == reply->capacity) {
        return true;
    }
    grown = realloc(reply->own_body, capacity);
    if (grown == NULL) {
        return false;
    }
    reply->own_body = grown;
    reply->capacity = capacity;
    return true;
}

static size_t take_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct leg *leg = arg;
    struct reply *reply = leg->reply;
    size_t old = reply->public.body_size;

    if (size * n > leg->client->options.body_size_max - old) {
        leg->stop = STOP_BODY;
        return 0;
    }
    if (!have_room(reply, old + size * n)) {
        leg->stop = STOP_MEMORY;
        return 0;
    }
    memcpy(reply->own_body + old, bytes, size * n);
    reply->public.body_size = old + size * n;
    return size * n;
}

/* Internal helpers: one leg */

/* Room up to the deadline in libcurl's unit, which is at least one. */
static long as_ms(int64_t ns)
{
    int64_t ms = ns / CF_MS + (ns % CF_MS > 0);

    return ms < 1 ? 1 : ms < 1000000000 ? (long)ms : 1000000000L;
}

static bool set_method(CURL *easy, const struct cf_client_request *request)
{
    /* Theirs is of size 0 then, which is to be said (RFC 9110, 8.6). */
    static const char *const with_body[] = {"POST", "PUT", "PATCH", NULL};
    const char *method = request->method;
    const char *body = request->body;
    size_t size = body != NULL ? request->body_size : 0;

    if (method != NULL && strcmp(method, "HEAD") == 0) {
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
    }
    if (body == NULL && method != NULL && is_one_of(method, with_body)) {
        body = "";
    }
    if (body != NULL &&
        (curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size) != CURLE_OK ||
         curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body) != CURLE_OK)) {
        return false;
    }
    return method == NULL || curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK;
}

/* What is the same for every request. No proxy, whatever the environment says: the address that is
 * looked at would be the proxy's. */
static bool set_rules(CURL *easy, struct leg *leg)
{
    const struct cf_client_options *options = &leg->client->options;

    return curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, leg) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_head) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HEADERDATA, leg) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEDATA, leg) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, leg->why) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, as_ms(options->connect_timeout_ns)) ==
               CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_USERAGENT, options->user_agent) == CURLE_OK &&
           (leg->client->trust == NULL || cf__trust_apply(leg->client->trust, easy));
}

static enum cf_code prepare(struct leg *leg, struct cf_err *err)
{
    CURL *easy = curl_easy_init();

    leg->reply = calloc(1, sizeof(*leg->reply));
    if (easy == NULL || leg->reply == NULL) {
        curl_easy_cleanup(easy);
        return cf_err_set(err, CF_ENOMEM, "no memory for a request");
    }
    leg->reply->easy = easy;
    if (!set_rules(easy, leg) || !set_method(easy, leg->request) ||
        curl_easy_setopt(easy, CURLOPT_CURLU, leg->url) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, leg->headers) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_RESOLVE, leg->pinned) != CURLE_OK ||
        !have_room(leg->reply, 0)) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a request");
    }
    return CF_OK;
}

/* Why libcurl has ended without a reply. */
static enum cf_code explain(const struct leg *leg, struct cf_err *err)
{
    CURLcode result = leg->call.result;
    const char *why = leg->why[0] != '\0' ? leg->why : curl_easy_strerror(result);
    const struct cf_client_options *options = &leg->client->options;

    switch (leg->stop) {
    case STOP_BODY:
        return cf_err_set(err, CF_ELIMIT, "the reply has more than %zu bytes",
                          options->body_size_max);
    case STOP_HEAD:
        return cf_err_set(err, CF_ELIMIT, "the reply's head has more than %zu bytes",
                          options->head_size_max);
    case STOP_MEMORY:
        return cf_err_set(err, CF_ENOMEM, "no memory for a reply");
    case STOP_ADDRESS:
        if (result == CURLE_COULDNT_CONNECT) {
            return cf_err_set(err, CF_EINVAL, "no rule allows the address of %s", leg->host);
        }
        break; /* Another address was allowed, and it is that one's failure. */
    case STOP_NONE:
        break;
    }
    switch (result) {
    case CURLE_OUT_OF_MEMORY:
    case CURLE_URL_MALFORMAT:        /* The URL was read before, */
    case CURLE_COULDNT_RESOLVE_HOST: /* its addresses are known, */
    case CURLE_SETOPT_OPTION_SYNTAX: /* and written as libcurl wants them. */
        return cf_err_set(err, CF_ENOMEM, "no memory for a request");
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE: /* A line of the head beyond libcurl's own limit. */
        return cf_err_set(err, CF_ELIMIT, "%s", why);
#endif
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT: /* Of connecting: there is no other. */
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return cf_err_set(err, CF_EUNAVAIL, "%s", why);
    default:
        return cf_err_set(err, CF_EIO, "%s", why);
    }
}

static void reply_free(struct reply *reply)
{
    if (reply != NULL) {
        curl_easy_cleanup(reply->easy);
        free(reply->own_url);
        free(reply->own_body);
        free(reply);
    }
}

static void leg_init(struct leg *leg, struct cf__client_side *side,
                     const struct cf_client_request *request, char *origin)
{
    *leg = (struct leg){
        .call = {.side = side}, .client = side->client, .request = request, .origin = origin};
}

static void leg_fini(struct leg *leg)
{
    curl_slist_free_all(leg->headers);
    curl_slist_free_all(leg->pinned);
    curl_free(leg->scheme);
    curl_free(leg->host);
    curl_free(leg->port);
    curl_url_cleanup(leg->url);
    reply_free(leg->reply);
}

/* The reply outlives the leg, and so does libcurl's handle,
 * which has to forget what is the leg's. */
static enum cf_code finish_reply(struct leg *leg, const char *url, struct cf_err *err)
{
    struct reply *reply = leg->reply;
    long status = 0;

    (void)curl_easy_setopt(reply->easy, CURLOPT_ERRORBUFFER, NULL);
    (void)curl_easy_setopt(reply->easy, CURLOPT_HTTPHEADER, NULL);
    (void)curl_easy_setopt(reply->easy, CURLOPT_RESOLVE, NULL);
    (void)curl_easy_setopt(reply->easy, CURLOPT_CURLU, NULL);
    reply->own_url = strdup(url);
    if (reply->own_url == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a reply");
    }
    (void)curl_easy_getinfo(reply->easy, CURLINFO_RESPONSE_CODE, &status);
    reply->own_body[reply->public.body_size] = '\0';
    reply->public.status = (int)status;
    reply->public.url = reply->own_url;
    reply->public.body = reply->own_body;
    return CF_OK;
}

static enum cf_code run_leg(struct cf_ctx *ctx, struct leg *leg, const char *url,
                            struct cf_err *err)
{
    enum cf_code code = read_url(leg, url, err);

    if (code == CF_OK) {
        code = ask_rules(leg, err);
    }
    if (code == CF_OK) {
        code = find_addresses(ctx, leg, err);
    }
    if (code == CF_OK) {
        code = add_headers(ctx, leg, err);
    }
    if (code == CF_OK) {
        code = prepare(leg, err);
    }
    if (code == CF_OK) {
        code = cf__client_perform(ctx, &leg->call, leg->reply->easy, err);
    }
    if (code == CF_OK && leg->call.result != CURLE_OK) {
        code = explain(leg, err);
    } else if (code == CF_OK && !leg->head_ended) {
        code = cf_err_set(err, CF_EIO, "the reply ended in its head"); /* libcurl takes it. */
    }
    return code == CF_OK ? finish_reply(leg, url, err) : code;
}

/* Internal helpers: legs */

static struct cf__client_side *find_side(struct cf_client *client)
{
    struct cf_loop *loop = cf_loop_current();

    CF_ASSERT(cf_on_fiber());
    for (size_t i = 0; i < client->n_sides; i++) {
        if (client->sides[i].loop == loop) {
            return &client->sides[i];
        }
    }
    CF_ASSERT(!"a fiber of one of the client's loops");
    return NULL;
}

/* Where the reply redirects to, or NULL: nowhere, or it is not to be followed. */
static const char *redirected(const struct leg *leg)
{
    const char *method = leg->request->method;
    char *url = NULL;

    if (leg->client->options.redirects_max == 0 || leg->request->body != NULL ||
        (method != NULL && strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)) {
        return NULL;
    }
    (void)curl_easy_getinfo(leg->reply->easy, CURLINFO_REDIRECT_URL, &url);
    return url;
}

/* Begin anew, at `url`. */
static enum cf_code follow(struct cf_ctx *ctx, struct leg *leg, const char *url, struct cf_err *err)
{
    char *own_url = strdup(url);
    enum cf_code code;

    if (own_url == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a redirect");
    }
    leg_fini(leg);
    leg_init(leg, leg->call.side, leg->request, leg->origin);
    code = run_leg(ctx, leg, own_url, err);
    if (code != CF_OK) {
        code = cf_err_wrap(err, code, "redirected");
    }
    free(own_url);
    return code;
}

static enum cf_code run_legs(struct cf_ctx *ctx, struct leg *leg, struct cf_err *err)
{
    enum cf_code code = run_leg(ctx, leg, leg->request->url, err);
    const char *url;

    for (int n = 0; code == CF_OK && (url = redirected(leg)) != NULL; n++) {
        if (n == leg->client->options.redirects_max) {
            return cf_err_set(err, CF_ELIMIT, "redirected more than %d times", n);
        }
        code = follow(ctx, leg, url, err);
    }
    return code;
}

/* Life cycle */

void cf_client_reply_free(struct cf_client_reply *reply)
{
    if (reply != NULL) {
        reply_free(CF__CONTAINER(reply, struct reply, public));
    }
}

/* Operations */

enum cf_code cf_client_do(struct cf_ctx *ctx, struct cf_client *client,
                          const struct cf_client_request *request, struct cf_client_reply **out,
                          struct cf_err *err)
{
    struct cf__client_side *side = find_side(client);
    char origin[ORIGIN_SIZE] = "";
    int64_t since_ns = cf_now_ns();
    struct cf_ctx *capped;
    struct leg leg;
    enum cf_code code;

    code = cf_ctx_check(ctx, err);
    if (code == CF_OK) {
        code = cf_ctx_with_timeout(ctx, client->options.timeout_max_ns, &capped, err);
    }
    if (code != CF_OK) {
        return code;
    }
    leg_init(&leg, side, request, origin);
    code = run_legs(capped, &leg, err);
    if (code == CF_OK) {
        leg.reply->public.took_ns = cf_now_ns() - since_ns;
        *out = &leg.reply->public;
        leg.reply = NULL;
    }
    leg_fini(&leg);
    cf_ctx_free(capped);
    return code;
}

/* Queries */

const char *cf_client_reply_header(const struct cf_client_reply *reply, const char *name)
{
    const struct reply *own = CF__CONTAINER(reply, struct reply, public);
    struct curl_header *header;

    if (curl_easy_header(own->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) {
        return NULL;
    }
    return header->value;
}
