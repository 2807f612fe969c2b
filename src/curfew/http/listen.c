/* SPDX-License-Identifier: MIT */
/* Listening sockets: see listen.h.
 *
 * SO_REUSEPORT lets the kernel spread connections over the loops' sockets, but would also let a
 * second instance of the service take half of the requests of the first without a word. So the
 * first socket is bound and listens without it, which fails if anybody else listens there; only
 * then is the option set, and the others join. The first keeps listening meanwhile: there is no
 * moment in which somebody else could come between. */
#include "curfew/http/listen.h"

#include <curfew/http.h>

#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096

/* Longest "host:port": a name of DNS, brackets, a port. */
#define ADDRESS_SIZE 300

/* Of a TCP header. */
#define TCP_FLAGS_AT 13
#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* Internal helpers */

/* 0 to 65535, in digits: getaddrinfo() would cut a greater number down to some other port. */
static bool is_port(const char *text)
{
    size_t size = strlen(text);

    return size >= 1 && size <= 5 && strspn(text, "0123456789") == size && atoi(text) <= UINT16_MAX;
}

/* Split "host:port" at its last colon, taking brackets off the host. */
static bool split(char *address, const char **out_host, const char **out_port)
{
    char *colon = strrchr(address, ':');
    size_t size;

    if (colon == NULL || !is_port(colon + 1)) {
        return false;
    }
    *colon = '\0';
    *out_port = colon + 1;
    size = strlen(address);
    if (address[0] == '[') {
        if (size < 2 || address[size - 1] != ']') {
            return false;
        }
        address[size - 1] = '\0';
        address++;
    } else if (strchr(address, ':') != NULL) {
        return false; /* Whose colon was the last is anybody's guess. */
    }
    *out_host = address[0] != '\0' ? address : NULL;
    return true;
}

/* Copy the address, and split the copy. */
static enum cf_code read_address(const char *address, char copy[ADDRESS_SIZE],
                                 const char **out_host, const char **out_port, struct cf_err *err)
{
    size_t size = strlen(address) + 1;

    if (size > ADDRESS_SIZE) {
        return cf_err_set(err, CF_EINVAL, "cannot listen: the address is too long");
    }
    memcpy(copy, address, size);
    if (!split(copy, out_host, out_port)) {
        return cf_err_set(err, CF_EINVAL,
                          "cannot listen on %s: not host:port, with a port from 0 to 65535",
                          address);
    }
    return CF_OK;
}

static enum cf_code cannot_resolve(const char *address, int failed, struct cf_err *err)
{
    switch (failed) {
    case EAI_MEMORY:
        return cf_err_set(err, CF_ENOMEM, "cannot listen on %s: no memory", address);
    case EAI_SYSTEM:
        return cf_err_set_sys(err, CF_EIO, errno, "cannot listen on %s", address);
    case EAI_AGAIN: /* The name server is away: the name may be right. */
        return cf_err_set(err, CF_EIO, "cannot listen on %s: %s", address, gai_strerror(failed));
    default:
        return cf_err_set(err, CF_EINVAL, "cannot listen on %s: %s", address, gai_strerror(failed));
    }
}

static enum cf_code resolve(const char *address, struct addrinfo **out, struct cf_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char copy[ADDRESS_SIZE];
    const char *host = NULL;
    const char *port = NULL;
    enum cf_code code = read_address(address, copy, &host, &port, err);
    int failed;

    if (code != CF_OK) {
        return code;
    }
    failed = getaddrinfo(host, port, &hints, out);
    return failed == 0 ? CF_OK : cannot_resolve(address, failed, err);
}

/* IPv4 where a name has both: what "localhost" is to most clients. */
static const struct addrinfo *choose(const struct addrinfo *infos)
{
    for (const struct addrinfo *info = infos; info != NULL; info = info->ai_next) {
        if (info->ai_family == AF_INET) {
            return info;
        }
    }
    return infos;
}

static bool enable(int fd, int option)
{
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on)) == 0;
}

/* Open a socket that listens, or set errno and return -1. The first of a set proves that the port
 * is free; the others share it. */
static int open_socket(const struct addrinfo *info, const struct sockaddr *at, bool is_first)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int sys;

    if (fd < 0) {
        return -1;
    }
    /* SO_REUSEADDR: the connections of the instance before may still be in TIME_WAIT. */
    if (enable(fd, SO_REUSEADDR) && (is_first || enable(fd, SO_REUSEPORT)) &&
        bind(fd, at, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0 &&
        (!is_first || enable(fd, SO_REUSEPORT))) {
        return fd;
    }
    sys = errno;
    (void)close(fd);
    errno = sys;
    return -1;
}

static enum cf_code cannot_listen(const char *address, int sys, struct cf_err *err)
{
    switch (sys) {
    case EADDRINUSE:
        return cf_err_set(err, CF_ECONFLICT, "cannot listen on %s: another process has that port",
                          address);
    case EADDRNOTAVAIL:
        return cf_err_set_sys(err, CF_EINVAL, sys, "cannot listen on %s", address);
    case ENOMEM:
    case ENOBUFS:
        return cf_err_set_sys(err, CF_ENOMEM, sys, "cannot listen on %s", address);
    default:
        return cf_err_set_sys(err, CF_EIO, sys, "cannot listen on %s", address);
    }
}

static uint16_t port_of(const struct sockaddr_storage *at)
{
    return ntohs(at->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)at)->sin6_port
                                           : ((const struct sockaddr_in *)at)->sin_port);
}

/* Operations */

enum cf_code cf__listen(const char *address, size_t n, int *out_fds, uint16_t *out_port,
                        struct cf_err *err)
{
    struct addrinfo *infos = NULL;
    const struct addrinfo *info;
    struct sockaddr_storage at = {0};
    socklen_t at_size = sizeof(at);
    size_t opened = 0;
    enum cf_code code = resolve(address, &infos, err);

    if (code != CF_OK) {
        return code;
    }
    info = choose(infos);
    memcpy(&at, info->ai_addr, info->ai_addrlen);
    while (opened < n) {
        int fd = open_socket(info, (const struct sockaddr *)&at, opened == 0);

        if (fd < 0) {
            code = cannot_listen(address, errno, err);
            break;
        }
        out_fds[opened++] = fd;
        /* If any port was asked for, the others take the one that the first was given. */
        (void)getsockname(fd, (struct sockaddr *)&at, &at_size);
    }
    freeaddrinfo(infos);
    if (code != CF_OK) {
        while (opened > 0) {
            (void)close(out_fds[--opened]);
        }
        return code;
    }
    *out_port = port_of(&at);
    return CF_OK;
}

void cf__listen_turn_away(int fd)
{
    /* Over the TCP header, as tcpdump's "tcp[13] & (SYN|ACK) == SYN". */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TCP_SYN | TCP_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
}

/* Queries */

enum cf_code cf_http_listen_check(const char *listen, struct cf_err *err)
{
    char copy[ADDRESS_SIZE];
    const char *host;
    const char *port;

    return read_address(listen, copy, &host, &port, err);
}
