/* SPDX-License-Identifier: MIT */
/* A raw HTTP/1.1 client: what goes over the socket is what the test wrote, byte by byte.
 *
 * Two forms. One request at a time on a connection that the test holds, so that it can be closed,
 * reset or half-closed at the wrong moment; and a volley of thousands, each on a connection of its
 * own and at its own instant, served by one thread and one epoll.
 *
 * Invariant: every wait has a limit. A reply that does not come in CLIENT_WAIT_NS fails the test.
 *
 *     struct reply *reply = client_get(service->api_port, "/v1/users/1", NULL);
 *     ck_assert_int_eq(reply->status, 200);
 *
 * Thread safety: any thread may have a connection of its own, but for reply_header(), which is the
 * test's; shots belong to their volley's until it was waited for. */
#ifndef CLIENT_H
#define CLIENT_H

#include <check.h>
#include <jansson.h>
#include <pthread.h>

#include <curfew/clock.h>

#define CLIENT_WAIT_NS (20 * CF_SECOND)

struct reply {
    int status;      /* 0: the connection ended without a whole reply. */
    int64_t sent_ns; /* Just before the request was sent. */
    int64_t done_ns; /* When the last byte was there. */
    char *head;      /* Status line and headers; "" without a reply. */
    char *body;      /* Terminated; "" if there is none. */
    size_t body_size;
    json_t *json;       /* The body, or NULL if it is none or no JSON. Borrowed. */
    struct reply *next; /* Private. */
};

/* Life cycle */

/* Connect to 127.0.0.1:port. The caller closes it. */
int client_open(uint16_t port);

/* The same, but a refusal is no failure: returns -errno. */
int client_try_open(uint16_t port);

/* The same, and neither is it one that nobody answers in `timeout_ns`: -ETIMEDOUT. */
int client_try_open_for(uint16_t port, int64_t timeout_ns);

/* Close with an RST. (close() sends a FIN, or an RST if something came that nobody read.) */
void client_reset(int fd);

/* Free every reply that was handed out. For the teardown. */
void client_free_all(void);

/* Operations */

/* Send bytes as they are. False: the other side has closed;
 * what it said before can still be read. */
bool client_send(int fd, const char *bytes);
bool client_send_bytes(int fd, const void *bytes, size_t size);

/* Send a request. `headers` are whole lines with their CRLF, or NULL. False: as above. */
bool client_request(int fd, const char *method, const char *target, const char *headers);

/* Read one reply. `method` says whether it has a body. The reply lives until client_free_all(). */
struct reply *client_recv(int fd, const char *method);

/* Open, request, read, close. */
struct reply *client_call(uint16_t port, const char *method, const char *target,
                          const char *headers);
struct reply *client_get(uint16_t port, const char *target, const char *headers);

/* True if the other side closes within `timeout_ns`; what it sends until then is dropped. */
bool client_wait_closed(int fd, int64_t timeout_ns);

/* Wait for the other side to close, with nothing more said. */
void client_expect_end(int fd);

/* Queries */

/* The value of a header, in any case of its name, or NULL. Lives until the reply does. */
const char *reply_header(struct reply *reply, const char *name);

/* Members of the JSON body by a path of keys and indices, "orders.0.id"; absent fails the test. */
json_t *reply_at(const struct reply *reply, const char *path);
const char *reply_str(const struct reply *reply, const char *path);
int64_t reply_i64(const struct reply *reply, const char *path);

/* Volleys */

struct shot {
    int64_t at_ns; /* When to send, after the volley's start. */
    const char *target;
    const char *headers; /* As in client_request(). */

    int status; /* 0: no reply, and `sys` says why. */
    int sys;    /* ECONNREFUSED, ECONNRESET, EPIPE (closed in silence), ETIMEDOUT. */
    int64_t sent_ns;
    int64_t done_ns;
    char text[1024];  /* Of the reply, cut. */
    size_t text_size; /* Private from here. */
    size_t want;
    int fd;
};

struct volley {
    uint16_t port;
    struct shot *shots; /* By at_ns, upwards. */
    size_t n_shots;
    int64_t start_ns; /* Set by volley_start(). */
    pthread_t thread;
};

/* Fire from a thread of its own; volley_wait() ends it. */
void volley_start(struct volley *volley);
void volley_wait(struct volley *volley);

/* Whether the reply's problem document has this code. */
bool shot_has_code(const struct shot *shot, const char *code);

/* The p-th permille of n values, which are sorted by this. */
int64_t permille(int64_t *values, size_t n, unsigned p);

/* Sleep. */
void pause_ms(int64_t ms);

/* A bound on the time that something took: as it is, but times CK_TIMEOUT_MULTIPLIER, which
 * libcheck applies to its own, for sanitizers and slow machines; and with what the machine stood
 * still since the test began (witness.h). So ask for it behind what it bounds. */
int64_t bound(int64_t most_ns);

/* The same for what no stall adds to: bytes, a processor's time, a length of time that the test
 * itself chooses. And for a promise, which the best of several rounds keeps, or none. */
int64_t bound_strictly(int64_t most);

/* Look until the condition holds; the test fails if it does not in CLIENT_WAIT_NS. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t since_ns_ = cf_now_ns();                                                           \
        while (!(condition)) {                                                                     \
            ck_assert_msg(cf_now_ns() - since_ns_ < bound(CLIENT_WAIT_NS),                         \
                          "has not come true: %s", #condition);                                    \
            pause_ms(1);                                                                           \
        }                                                                                          \
    } while (0)

#endif
