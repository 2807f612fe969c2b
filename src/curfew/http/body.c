/* SPDX-License-Identifier: MIT */
/* What a client sent with its request.
 *
 * A body is kept whole, in memory of its own that grows with what really comes: a length that is
 * only promised costs nothing. How large one may be, the filter and see_body() say; how large all
 * of a loop's may be together is said here, or ten thousand clients could fill the memory, each
 * within its limit. It is freed as soon as the handler has ended, not when its reply was taken. */
#include <stdlib.h>
#include <string.h>

#include "curfew/http/jansson.h"
#include "curfew/http/server_private.h"

#define ROOM_MIN 1024

/* Internal helpers */

/* Let the body have room for `size` bytes and a NUL. */
static enum cf_code make_room(struct cf_http *http, size_t size, struct cf_err *err)
{
    struct cf__shard *shard = http->connection->shard;
    size_t room = http->body_room > 0 ? http->body_room : ROOM_MIN;
    char *body;

    while (room <= size) {
        room *= 2; /* No overflow: size is within body_size_max, which is not half of everything. */
    }
    if (room > ROOM_MIN && size <= http->head.length && room > http->head.length) {
        room = (size_t)http->head.length + 1; /* More than was promised does not come. */
    }
    if (room == http->body_room) {
        return CF_OK;
    }
    if (shard->bodies_size + (room - http->body_room) > shard->bodies_size_max) {
        return cf_err_set(err, CF_ELIMIT, "too many bodies at once");
    }
    body = realloc(http->body, room);
    if (body == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for the body");
    }
    shard->bodies_size += room - http->body_room;
    http->body = body;
    http->body_room = room;
    return CF_OK;
}

/* Operations */

enum cf_code cf__body_add(struct cf_http *http, const char *data, size_t size, struct cf_err *err)
{
    size_t before = (size_t)http->body_size - size;
    enum cf_code code = make_room(http, (size_t)http->body_size, err);

    if (code == CF_OK) {
        memcpy(http->body + before, data, size);
        http->body[http->body_size] = '\0';
    }
    return code;
}

void cf__body_free(struct cf_http *http)
{
    http->connection->shard->bodies_size -= http->body_room;
    free(http->body);
    http->body = NULL;
    http->body_room = 0;
}

/* Queries */

const char *cf_http_body(const struct cf_http *http, size_t *out_size)
{
    if (out_size != NULL) {
        *out_size = http->body != NULL ? (size_t)http->body_size : 0;
    }
    return http->body != NULL ? http->body : "";
}

enum cf_code cf_http_body_json(const struct cf_http *http, struct json_t **out, struct cf_err *err)
{
    size_t size;
    const char *body = cf_http_body(http, &size);

    if (size == 0) {
        return cf_err_set(err, CF_EINVAL, "the body is empty, and should be JSON");
    }
    return cf__jansson_read(body, size, out, err);
}
