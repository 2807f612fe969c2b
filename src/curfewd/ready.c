/* SPDX-License-Identifier: MIT */
/* One request on one connection, without a loop: see ready.h.
 *
 * Not by the library's HTTP client: that needs a loop, threads and libcurl's set-up, twenty times
 * what the answer takes, and is run every few seconds. */
#include "curfewd/ready.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/ctx.h>
#include <curfew/wait.h>

/* Constants and types */

/* localhost is a name that the admin listener always goes by. */
#define REQUEST "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

#define ADDRESS_SIZE 300
#define REPLY_SIZE 4096

/* Internal helpers */

/* Split "host:port" at its last colon. The service itself looks at it more closely. */
static bool split(char *address, const char **out_host, const char **out_port)
{
    char *colon = strrchr(address, ':');
    long port = colon != NULL ? strtol(colon + 1, NULL, 10) : 0;
    size_t size;

    if (port <= 0 || port > UINT16_MAX) {
        return false;
    }
    *colon = '\0';
    *out_port = colon + 1;
    size = strlen(address);
    if (size >= 2 && address[0] == '[' && address[size - 1] == ']') {
        address[size - 1] = '\0';
        address++;
    }
    *out_host = address[0] != '\0' ? address : "127.0.0.1";
    return true;
}

static enum cf_code resolve(const char *address, struct addrinfo **out, struct cf_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char copy[ADDRESS_SIZE];
    const char *host;
    const char *port;
    int failed;

    if ((size_t)snprintf(copy, sizeof(copy), "%s", address) >= sizeof(copy) ||
        !split(copy, &host, &port)) {
        return cf_err_set(err, CF_EINVAL, "not host:port, with a port from 1 to 65535");
    }
    failed = getaddrinfo(host, port, &hints, out);
    switch (failed) {
    case 0:
        return CF_OK;
    case EAI_MEMORY:
        return cf_err_set(err, CF_ENOMEM, "no memory");
    case EAI_SYSTEM:
        return cf_err_set_sys(err, CF_EIO, errno, "getaddrinfo");
    default: /* The name server is away: the setting may be right. */
        return cf_err_set(err, failed == EAI_AGAIN ? CF_EIO : CF_EINVAL, "%s",
                          gai_strerror(failed));
    }
}

static enum cf_code connect_to(struct cf_ctx *ctx, const struct addrinfo *info, int fd,
                               struct cf_err *err)
{
    int sys = 0;
    int events;
    socklen_t size = sizeof(sys);
    enum cf_code code = CF_OK;

    if (connect(fd, info->ai_addr, info->ai_addrlen) != 0) {
        sys = errno;
    }
    if (sys == EINPROGRESS) {
        code = cf_wait_fd(ctx, fd, CF_WRITABLE, &events, err);
        if (code == CF_OK && getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &size) != 0) {
            sys = errno;
        }
    }
    if (code == CF_OK && sys != 0) {
        code = cf_err_set_sys(err, CF_EUNAVAIL, sys, "cannot connect");
    }
    return code;
}

/* Read until the other side closes, or there is no more room. */
static enum cf_code read_reply(struct cf_ctx *ctx, int fd, char out[REPLY_SIZE], struct cf_err *err)
{
    size_t size = 0;
    ssize_t n = 1;
    int events;
    enum cf_code code = CF_OK;

    while (code == CF_OK && n != 0 && size < REPLY_SIZE - 1) {
        n = recv(fd, out + size, REPLY_SIZE - 1 - size, 0);
        if (n > 0) {
            size += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            code = cf_wait_fd(ctx, fd, CF_READABLE, &events, err);
        } else if (n < 0) {
            code = cf_err_set_sys(err, CF_EIO, errno, "cannot read the reply");
        }
    }
    out[size] = '\0';
    return code;
}

/* What it says when it is not: the body, which names the reason, on one line. */
static enum cf_code judge(const char *reply, struct cf_err *err)
{
    static const char good[] = "HTTP/1.1 200 ";
    const char *body = strstr(reply, "\r\n\r\n");

    if (strncmp(reply, good, strlen(good)) == 0) {
        return CF_OK;
    }
    if (strncmp(reply, good, strlen("HTTP/1.1 ")) != 0 || body == NULL) {
        return cf_err_set(err, CF_EIO, "not a reply of HTTP/1.1");
    }
    body += strlen("\r\n\r\n");
    return cf_err_set(err, CF_EUNAVAIL, "not ready: %.3s %.*s", reply + strlen("HTTP/1.1 "),
                      (int)strcspn(body, "\r\n"), body);
}

/* Connect to the first address that lets us: a name may have one of IPv6 and one of IPv4. */
static enum cf_code open_connection(struct cf_ctx *ctx, const struct addrinfo *infos, int *out_fd,
                                    struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (const struct addrinfo *info = infos; info != NULL; info = info->ai_next) {
        int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        code = fd >= 0 ? connect_to(ctx, info, fd, err)
                       : cf_err_set_sys(err, CF_EIO, errno, "no socket");
        if (code == CF_OK) {
            *out_fd = fd;
            break;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    return code;
}

static enum cf_code ask(struct cf_ctx *ctx, const struct addrinfo *infos, struct cf_err *err)
{
    int fd = -1;
    char reply[REPLY_SIZE];
    enum cf_code code = open_connection(ctx, infos, &fd, err);

    if (code != CF_OK) {
        return code;
    }
    /* A socket that is new has room for all of it. */
    if (send(fd, REQUEST, strlen(REQUEST), MSG_NOSIGNAL) < 0) {
        code = cf_err_set_sys(err, CF_EIO, errno, "cannot send the request");
    }
    if (code == CF_OK) {
        code = read_reply(ctx, fd, reply, err);
    }
    if (code == CF_OK) {
        code = judge(reply, err);
    }
    (void)close(fd);
    return code;
}

/* Operations */

enum cf_code ready_ask(const char *address, int64_t timeout_ns, struct cf_err *err)
{
    struct cf_ctx *ctx = NULL;
    struct addrinfo *infos = NULL;
    enum cf_code code = resolve(address, &infos, err);

    if (code == CF_OK) {
        code = cf_ctx_with_timeout(cf_ctx_background(), timeout_ns, &ctx, err);
    }
    if (code == CF_OK) {
        CF_ASSERT(infos != NULL);
        code = ask(ctx, infos, err);
    }
    cf_ctx_free(ctx);
    if (infos != NULL) {
        freeaddrinfo(infos);
    }
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "%s", address);
}
