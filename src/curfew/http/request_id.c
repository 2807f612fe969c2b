/* SPDX-License-Identifier: MIT */
/* Request ids: see request_id.h. What a client sends is taken over only from a small alphabet: an
 * id is written into headers, logs and problem documents. */
#include "curfew/http/request_id.h"

#include <string.h>

static const char ALLOWED[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "abcdefghijklmnopqrstuvwxyz"
                              "0123456789._~+/=-";

bool cf__request_id_valid(const char *text)
{
    size_t size = strspn(text, ALLOWED);

    return size >= 1 && size <= CF__REQUEST_ID_MAX && text[size] == '\0';
}
