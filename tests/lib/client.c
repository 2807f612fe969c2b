/* SPDX-License-Identifier: MIT */
/* Sockets, poll and epoll: see client.h. */
#include "client.h"

#include <arpa/inet.h>
#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "witness.h"

/* Constants and types */

#define REPLY_SIZE_MAX ((size_t)16 << 20)
#define HEAD_SIZE_MAX ((size_t)1 << 16)
#define REQUEST_SIZE_MAX 16384

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct reply *replies; /* All that were handed out; under `mu`. */

/* Internal helpers */

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Wait until the descriptor is ready; false: the time is up. */
static bool wait_ready(int fd, short events, int64_t until_ns)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    for (;;) {
        int64_t left_ns = until_ns - cf_now_ns();
        int n;

        if (left_ns <= 0) {
            return false;
        }
        n = poll(&poll_fd, 1, (int)((left_ns + CF_MS - 1) / CF_MS));
        if (n > 0) {
            return true;
        }
        ck_assert(n == 0 || errno == EINTR);
    }
}

/* False: too long. */
static bool write_request(char *out, size_t size, const char *method, const char *target,
                          const char *headers)
{
    int n = snprintf(out, size, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", method, target,
                     headers != NULL ? headers : "");

    return n > 0 && (size_t)n < size;
}

/* Where the head of a message ends, behind its empty line, or NULL. */
static const char *end_of_head(const char *text)
{
    const char *end = strstr(text, "\r\n\r\n");

    return end != NULL ? end + 4 : NULL;
}

/* Find a header between the status line and `end`; returns where its value begins. */
static const char *find_header(const char *head, const char *end, const char *name,
                               size_t *out_size)
{
    size_t length = strlen(name);
    const char *line = strstr(head, "\r\n");

    while (line != NULL && line + 2 < end) {
        const char *next = strstr(line + 2, "\r\n");

        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *value = line + length + 1;

            while (*value == ' ' || *value == '\t') {
                value++;
            }
            *out_size = (size_t)(next - value);
            return value;
        }
        line = next;
    }
    return NULL;
}

/* Size of a whole reply whose head is there; 0 if its end is not announced. */
static size_t size_of_reply(const char *text, const char *body, bool has_body)
{
    int status = atoi(text + strlen("HTTP/1.1 "));
    size_t size;
    const char *length;

    if (!has_body || status == 204 || status == 304 || status / 100 == 1) {
        return (size_t)(body - text);
    }
    length = find_header(text, body, "Content-Length", &size);
    return length != NULL ? (size_t)(body - text) + strtoul(length, NULL, 10) : 0;
}

/* Life cycle */

int client_try_open_for(uint16_t port, int64_t timeout_ns)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof(int);
    int sys = 0;
    int on = 1;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        sys = errno;
        if (sys == EINPROGRESS && !wait_ready(fd, POLLOUT, cf_now_ns() + timeout_ns)) {
            sys = ETIMEDOUT;
        } else if (sys == EINPROGRESS) {
            ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &size), 0);
        }
    }
    if (sys != 0) {
        (void)close(fd);
        return -sys;
    }
    return fd;
}

int client_try_open(uint16_t port)
{
    int fd = client_try_open_for(port, CLIENT_WAIT_NS);

    ck_assert_msg(fd != -ETIMEDOUT, "connecting to port %d hangs", port);
    return fd;
}

int client_open(uint16_t port)
{
    int fd = client_try_open(port);

    ck_assert_msg(fd >= 0, "connect to port %d: %s", port, strerror(-fd));
    return fd;
}

void client_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    (void)close(fd);
}

void client_free_all(void)
{
    struct reply *next;

    (void)pthread_mutex_lock(&mu);
    next = replies;
    replies = NULL;
    (void)pthread_mutex_unlock(&mu);
    while (next != NULL) {
        struct reply *reply = next;

        next = reply->next;
        json_decref(reply->json);
        free(reply->head);
        free(reply->body);
        free(reply);
    }
}

/* Operations */

bool client_send(int fd, const char *bytes)
{
    return client_send_bytes(fd, bytes, strlen(bytes));
}

bool client_send_bytes(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            ck_assert_msg(wait_ready(fd, POLLOUT, cf_now_ns() + CLIENT_WAIT_NS), "sending hangs");
            continue;
        }
        if (n < 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

bool client_request(int fd, const char *method, const char *target, const char *headers)
{
    char request[REQUEST_SIZE_MAX];

    ck_assert(write_request(request, sizeof(request), method, target, headers));
    return client_send(fd, request);
}

/* Split what was read into a reply. */
static void parse_reply(struct reply *reply, const char *text, size_t size)
{
    const char *body = end_of_head(text);

    ck_assert_msg(strncmp(text, "HTTP/1.1 ", 9) == 0, "no HTTP/1.1 reply: %.60s", text);
    reply->status = atoi(text + 9);
    free(reply->head);
    free(reply->body);
    reply->head = strndup(text, (size_t)(body - text));
    reply->body_size = size - (size_t)(body - text);
    reply->body = malloc(reply->body_size + 1); /* It may hold zeros. */
    ck_assert_ptr_nonnull(reply->body);
    memcpy(reply->body, body, reply->body_size);
    reply->body[reply->body_size] = '\0';
    reply->json =
        json_loadb(reply->body, reply->body_size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
}

/* Read what has come, and of a head nothing beyond its end. */
static ssize_t read_some(int fd, char *text, size_t size, size_t room, bool is_head)
{
    ssize_t n = recv(fd, text + size, room, is_head ? MSG_PEEK : 0);
    const char *end;

    if (n <= 0 || !is_head) {
        return n;
    }
    text[size + (size_t)n] = '\0';
    end = end_of_head(text);
    return recv(fd, text + size, end != NULL ? (size_t)(end - text) - size : (size_t)n, 0);
}

/* Read until the reply is whole, or the other side closes. The caller frees it. */
static char *read_reply(int fd, bool has_body, size_t *out_size, bool *out_whole)
{
    int64_t until_ns = cf_now_ns() + CLIENT_WAIT_NS;
    size_t capacity = HEAD_SIZE_MAX;
    char *text = calloc(1, capacity + 1);
    bool is_head = true;
    size_t size = 0;
    size_t want = 0; /* 0: up to the end of the connection. */

    ck_assert_ptr_nonnull(text);
    *out_whole = false;
    while (!*out_whole) {
        ssize_t n;

        ck_assert_msg(wait_ready(fd, POLLIN, until_ns), "no reply comes; so far: \"%s\"", text);
        n = read_some(fd, text, size, (want > 0 ? want : capacity) - size, is_head);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (n <= 0) {
            *out_whole = want == 0 && !is_head;
            break;
        }
        size += (size_t)n;
        text[size] = '\0';
        if (is_head && end_of_head(text) != NULL) {
            is_head = false;
            want = size_of_reply(text, end_of_head(text), has_body);
        }
        if (want > capacity || size == capacity) {
            capacity = want > capacity ? want : 2 * capacity;
            ck_assert_msg(!is_head && capacity <= REPLY_SIZE_MAX, "too large: %.60s", text);
            text = realloc(text, capacity + 1);
            ck_assert_ptr_nonnull(text);
        }
        *out_whole = want > 0 && size == want;
    }
    *out_size = size;
    return text;
}

struct reply *client_recv(int fd, const char *method)
{
    struct reply *reply = calloc(1, sizeof(*reply));
    char *text;
    bool whole;
    size_t size;

    ck_assert_ptr_nonnull(reply);
    (void)pthread_mutex_lock(&mu);
    reply->next = replies;
    replies = reply;
    (void)pthread_mutex_unlock(&mu);
    text = read_reply(fd, strcmp(method, "HEAD") != 0, &size, &whole);
    reply->done_ns = cf_now_ns();
    reply->head = strdup("");
    reply->body = strdup("");
    if (whole) {
        parse_reply(reply, text, size);
    }
    free(text);
    return reply;
}

struct reply *client_call(uint16_t port, const char *method, const char *target,
                          const char *headers)
{
    int fd = client_open(port);
    int64_t sent_ns = cf_now_ns();
    struct reply *reply;

    client_request(fd, method, target, headers);
    reply = client_recv(fd, method);
    reply->sent_ns = sent_ns;
    (void)close(fd);
    return reply;
}

struct reply *client_get(uint16_t port, const char *target, const char *headers)
{
    return client_call(port, "GET", target, headers);
}

bool client_wait_closed(int fd, int64_t timeout_ns)
{
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);
    char dropped[4096];

    while (wait_ready(fd, POLLIN, until_ns)) {
        ssize_t n = recv(fd, dropped, sizeof(dropped), 0);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return true;
        }
    }
    return false;
}

void client_expect_end(int fd)
{
    char said[64];
    ssize_t n;

    do {
        ck_assert_msg(wait_ready(fd, POLLIN, cf_now_ns() + CLIENT_WAIT_NS), "it does not close");
        n = recv(fd, said, sizeof(said), 0);
    } while (n < 0 && (errno == EAGAIN || errno == EINTR));
    ck_assert_msg(n <= 0, "it says more: \"%.*s\"", (int)n, said);
}

/* Queries */

const char *reply_header(struct reply *reply, const char *name)
{
    static char values[8][1024]; /* Enough for those that one assertion looks at. */
    static unsigned turn;
    size_t size;
    const char *value = find_header(reply->head, reply->head + strlen(reply->head), name, &size);
    char *out = values[turn++ % 8];

    if (value == NULL) {
        return NULL;
    }
    ck_assert_uint_lt(size, sizeof(values[0]));
    memcpy(out, value, size);
    out[size] = '\0';
    return out;
}

json_t *reply_at(const struct reply *reply, const char *path)
{
    char copy[256];
    char *rest = NULL;
    json_t *at = reply->json;

    ck_assert_uint_lt(strlen(path), sizeof(copy));
    strcpy(copy, path);
    for (char *key = strtok_r(copy, ".", &rest); key != NULL; key = strtok_r(NULL, ".", &rest)) {
        at = isdigit((unsigned char)key[0]) ? json_array_get(at, (size_t)atoi(key))
                                            : json_object_get(at, key);
    }
    ck_assert_msg(at != NULL, "no \"%s\" in the reply: %d %s", path, reply->status, reply->body);
    return at;
}

const char *reply_str(const struct reply *reply, const char *path)
{
    const char *text = json_string_value(reply_at(reply, path));

    ck_assert_msg(text != NULL, "\"%s\" is no string: %s", path, reply->body);
    return text;
}

int64_t reply_i64(const struct reply *reply, const char *path)
{
    json_t *value = reply_at(reply, path);

    ck_assert_msg(json_is_integer(value), "\"%s\" is no integer: %s", path, reply->body);
    return json_integer_value(value);
}

/* Volleys
 *
 * No assertion of libcheck's in here: its pipe is for one thread. */

static void end_shot(struct shot *shot, int status, int sys)
{
    shot->done_ns = cf_now_ns();
    shot->status = status;
    shot->sys = sys;
    if (shot->fd >= 0) {
        (void)close(shot->fd);
        shot->fd = -1;
    }
}

/* Connect; the request follows when the connection is there. True: under way. */
static bool open_shot(struct volley *volley, size_t i, int epoll)
{
    struct sockaddr_in address = loopback(volley->port);
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = i};
    struct shot *shot = &volley->shots[i];

    shot->sent_ns = cf_now_ns();
    shot->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (shot->fd < 0) {
        end_shot(shot, 0, errno);
        return false;
    }
    if ((connect(shot->fd, (struct sockaddr *)&address, sizeof(address)) != 0 &&
         errno != EINPROGRESS) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, shot->fd, &event) != 0) {
        end_shot(shot, 0, errno);
        return false;
    }
    return true;
}

static bool send_shot(struct shot *shot, size_t i, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
    char request[REQUEST_SIZE_MAX];
    ssize_t n;

    if (!write_request(request, sizeof(request), "GET", shot->target, shot->headers)) {
        end_shot(shot, 0, EMSGSIZE);
        return false;
    }
    n = send(shot->fd, request, strlen(request), MSG_NOSIGNAL);
    if (n != (ssize_t)strlen(request) || epoll_ctl(epoll, EPOLL_CTL_MOD, shot->fd, &event) != 0) {
        end_shot(shot, 0, errno);
        return false;
    }
    return true;
}

/* Take what came. True: there is more to come. */
static bool recv_shot(struct shot *shot)
{
    char more[4096];
    ssize_t n = recv(shot->fd, more, sizeof(more), 0);
    size_t kept =
        shot->text_size < sizeof(shot->text) - 1 ? shot->text_size : sizeof(shot->text) - 1;
    size_t room = sizeof(shot->text) - 1 - kept;
    const char *body;

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n <= 0) {
        end_shot(shot, 0, n < 0 ? errno : EPIPE);
        return false;
    }
    memcpy(shot->text + kept, more, (size_t)n < room ? (size_t)n : room);
    shot->text_size += (size_t)n;
    body = shot->want == 0 ? end_of_head(shot->text) : NULL;
    if (body != NULL) {
        shot->want = size_of_reply(shot->text, body, true);
    }
    if (shot->want > 0 && shot->text_size >= shot->want) {
        end_shot(shot, atoi(shot->text + strlen("HTTP/1.1 ")), 0);
        return false;
    }
    return true;
}

/* True: still under way. */
static bool serve_shot(struct volley *volley, const struct epoll_event *event, int epoll)
{
    size_t i = (size_t)event->data.u64;
    struct shot *shot = &volley->shots[i];
    socklen_t size = sizeof(int);
    int sys = 0;

    if (shot->fd < 0) {
        return true; /* Ended in this turn: it was counted then. */
    }
    if ((event->events & EPOLLOUT) != 0) {
        (void)getsockopt(shot->fd, SOL_SOCKET, SO_ERROR, &sys, &size);
        if (sys != 0) {
            end_shot(shot, 0, sys);
            return false;
        }
        return send_shot(shot, i, epoll);
    }
    return recv_shot(shot);
}

static void *run_volley(void *arg)
{
    struct volley *volley = arg;
    struct epoll_event events[256];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t next = 0;
    size_t flying = 0;
    int64_t last_ns = volley->start_ns + volley->shots[volley->n_shots - 1].at_ns;

    while ((next < volley->n_shots || flying > 0) && cf_now_ns() < last_ns + CLIENT_WAIT_NS) {
        int64_t now_ns = cf_now_ns();
        int n;

        while (next < volley->n_shots && volley->start_ns + volley->shots[next].at_ns <= now_ns) {
            flying += open_shot(volley, next, epoll);
            next++;
        }
        n = epoll_wait(epoll, events, 256, next < volley->n_shots ? 1 : 100);
        for (int i = 0; i < n; i++) {
            flying -= !serve_shot(volley, &events[i], epoll);
        }
    }
    for (size_t i = 0; i < volley->n_shots; i++) {
        if (volley->shots[i].fd >= 0) {
            end_shot(&volley->shots[i], 0, ETIMEDOUT);
        }
    }
    (void)close(epoll);
    return NULL;
}

void volley_start(struct volley *volley)
{
    for (size_t i = 0; i < volley->n_shots; i++) {
        volley->shots[i].fd = -1;
    }
    volley->start_ns = cf_now_ns();
    ck_assert_int_eq(pthread_create(&volley->thread, NULL, run_volley, volley), 0);
}

void volley_wait(struct volley *volley)
{
    ck_assert_int_eq(pthread_join(volley->thread, NULL), 0);
}

bool shot_has_code(const struct shot *shot, const char *code)
{
    char member[64];

    (void)snprintf(member, sizeof(member), "\"code\":\"%s\"", code);
    return strstr(shot->text, member) != NULL;
}

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

int64_t permille(int64_t *values, size_t n, unsigned p)
{
    size_t rank = (n * p + 999) / 1000;

    ck_assert_uint_gt(n, 0);
    qsort(values, n, sizeof(values[0]), compare);
    return values[rank > 0 ? rank - 1 : 0];
}

int64_t bound(int64_t most_ns)
{
    return bound_strictly(most_ns) + witness_stalled_ns();
}

int64_t bound_strictly(int64_t most)
{
    const char *multiplier = getenv("CK_TIMEOUT_MULTIPLIER");
    double factor = multiplier != NULL ? strtod(multiplier, NULL) : 1;

    return factor > 1 ? (int64_t)((double)most * factor) : most;
}

void pause_ms(int64_t ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * CF_MS};

    while (nanosleep(&time, &time) != 0) {
    }
}
