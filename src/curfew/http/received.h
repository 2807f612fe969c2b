/* SPDX-License-Identifier: MIT */
/* What has come on a connection, and gone, as the kernel counts. */
#ifndef CURFEW_HTTP_RECEIVED_H
#define CURFEW_HTTP_RECEIVED_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of data since the connection was made; 0 for what is no TCP. */
uint64_t cf__bytes_received(int fd);

/* Bytes that the other side has taken since the connection was made; 0 for what is no TCP. */
uint64_t cf__bytes_taken(int fd);

/* Bytes that were sent on the connection and that the other side has not taken yet. */
size_t cf__bytes_not_taken(int fd);

#endif
