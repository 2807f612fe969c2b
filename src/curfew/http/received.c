/* SPDX-License-Identifier: MIT */
/* A file of its own, because the kernel's header, which knows of the count, and glibc's, which
 * libuv includes and which does not, cannot both be included. */
#include "curfew/http/received.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Internal helpers */

static struct tcp_info ask(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);

    memset(&info, 0, sizeof(info)); /* An older kernel writes less. */
    (void)getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    return info;
}

/* Queries */

uint64_t cf__bytes_received(int fd)
{
    return ask(fd).tcpi_bytes_received;
}

uint64_t cf__bytes_taken(int fd)
{
    return ask(fd).tcpi_bytes_acked;
}

size_t cf__bytes_not_taken(int fd)
{
    int n = 0;

    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}
