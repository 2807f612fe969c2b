/* SPDX-License-Identifier: MIT */
/* The request filter. Input: what a client sends, up to its end of stream; libmicrohttpd reads it
 * from a socket and shows us the heads, as in the service. */
#include "curfew/http/filter.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kit.h"

#define INPUT_MAX ((size_t)64 * 1024)
#define BODY_MAX 4096
#define TURNS_MAX 10000

/* As much memory as the service gives a connection. */
#define CONNECTION_MEMORY ((size_t)32 * 1024)

/* The oracle: what a head has that it should not. */
struct faults {
    unsigned n_hosts;
    unsigned n_lengths;
    unsigned n_encodings;
    bool is_other_encoding;
    bool is_large;
    bool is_bad_field;
    bool is_bad_timeout;
};

static const struct cf_http_options limits = {
    .head_size_max = (size_t)14 * 1024, .fields_max = 100, .target_size_max = (size_t)8 * 1024};

static enum MHD_Result look(void *arg, enum MHD_ValueKind kind, const char *name, size_t size,
                            const char *value, size_t value_size)
{
    struct faults *faults = arg;

    (void)kind;
    value = value != NULL ? value : "";
    faults->is_bad_field = faults->is_bad_field || strlen(name) != size ||
                           !fuzz_matches("^[]!#$%&'*+.^_`|~0-9A-Za-z-]+$", name) ||
                           strchr(name, ']') != NULL;
    for (size_t i = 0; i < value_size; i++) {
        unsigned char c = (unsigned char)value[i];

        faults->is_bad_field = faults->is_bad_field || (c < ' ' && c != '\t') || c == 0x7F;
    }
    faults->n_hosts += strcasecmp(name, "Host") == 0;
    if (strcasecmp(name, "Content-Length") == 0) {
        faults->n_lengths++;
        faults->is_large = faults->is_large || strtold(value, NULL) > BODY_MAX;
    }
    if (strcasecmp(name, "Transfer-Encoding") == 0) {
        faults->n_encodings++;
        faults->is_other_encoding = faults->is_other_encoding || strcasecmp(value, "chunked") != 0;
    }
    if (strcasecmp(name, "Request-Timeout-Ms") == 0) {
        faults->is_bad_timeout =
            faults->is_bad_timeout || !fuzz_matches("^[ \t]*[0-9]{1,10}[ \t]*$", value);
    }
    return MHD_YES;
}

static bool is_one_of(const char *list, const char *method)
{
    size_t size = strlen(method);

    for (const char *at = list; (at = strstr(at, method)) != NULL && size > 0; at++) {
        if ((at == list || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0')) {
            return strchr(method, ' ') == NULL;
        }
    }
    return false;
}

/* Refused if and only if it has a fault. */
static void check_head(struct MHD_Connection *mhd, const char *method, const char *version,
                       const struct cf__head *head, enum cf_code code)
{
    const struct cf__refusal *refusal = cf__head_refusal(head);
    struct faults faults = {.n_hosts = 0};
    bool is_bad;

    (void)MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, look, &faults);
    FUZZ_CHECK((code != CF_OK) == faults.is_bad_timeout);
    FUZZ_CHECK(head->deadline.timeout_ns >= 0);
    if (refusal != NULL && refusal->kind == CF__PROBLEM_HEAD_TOO_LARGE) {
        FUZZ_CHECK(head->size > limits.head_size_max || head->n_fields > limits.fields_max);
        return;
    }
    is_bad = faults.is_bad_field || faults.n_hosts > 1 || faults.n_lengths > 1 ||
             faults.n_encodings > 1 || faults.is_other_encoding ||
             (faults.n_lengths > 0 && faults.n_encodings > 0) || faults.is_large ||
             (faults.n_hosts == 0 && strcmp(version, "HTTP/1.0") != 0) ||
             !is_one_of("GET HEAD POST PUT PATCH DELETE OPTIONS", method);
    FUZZ_CHECK((refusal != NULL) == is_bad);
}

static enum MHD_Result access_request(void *arg, struct MHD_Connection *mhd, const char *url,
                                      const char *method, const char *version, const char *data,
                                      size_t *size, void **state)
{
    static char seen;
    struct MHD_Response *response;
    struct cf_err err = {.msg = ""};
    struct cf__head head;
    enum MHD_Result result;
    enum cf_code code;

    (void)arg, (void)url, (void)data;
    if (*state == NULL) {
        *state = &seen;
        code = cf__head_read(&head, mhd, method, version, BODY_MAX, &err);
        cf__head_limit(&head, &limits, 0);
        check_head(mhd, method, version, &head, code);
        if (cf__head_refusal(&head) == NULL) {
            return MHD_YES;
        }
    } else if (*size > 0) {
        *size = 0;
        return MHD_YES;
    }
    response = MHD_create_response_from_buffer(0, &seen, MHD_RESPMEM_PERSISTENT);
    FUZZ_CHECK(response != NULL);
    result = MHD_queue_response(mhd, 200, response);
    MHD_destroy_response(response);
    return result;
}

static unsigned open_connections(struct MHD_Daemon *daemon)
{
    return MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

static struct MHD_Daemon *the_daemon(void)
{
    static struct MHD_Daemon *daemon;

    if (daemon == NULL) {
        daemon =
            MHD_start_daemon(MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, access_request, NULL,
                             MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_END);
        FUZZ_CHECK(daemon != NULL);
    }
    return daemon;
}

FUZZ_TARGET(filter)
{
    struct MHD_Daemon *daemon = the_daemon();
    struct sockaddr address = {.sa_family = AF_UNIX};
    char replies[4096];
    int ends[2];

    size = size < INPUT_MAX ? size : INPUT_MAX;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    FUZZ_CHECK(send(ends[0], data, size, MSG_NOSIGNAL) == (ssize_t)size);
    FUZZ_CHECK(shutdown(ends[0], SHUT_WR) == 0);
    FUZZ_CHECK(MHD_add_connection(daemon, ends[1], &address, sizeof(address)) == MHD_YES);
    for (int i = 0; open_connections(daemon) > 0; i++) {
        FUZZ_CHECK(i < TURNS_MAX); /* Whatever comes, it ends. */
        FUZZ_CHECK(MHD_run(daemon) == MHD_YES);
        while (recv(ends[0], replies, sizeof(replies), 0) > 0) {
        }
    }
    (void)close(ends[0]);
    return 0;
}
