/* SPDX-License-Identifier: MIT */
/* Whether a reply is compressed: for a client that asks for it, if the body is of a type that gets
 * smaller, and of a size at which that is worth the time and does not hold up the loop for long.
 *
 * Every reply that could have been says Vary, whatever its size, for the next one of its path may
 * have another; the answer to HEAD is compressed too, or its Content-Length would be wrong; a 304
 * is about the form that the client says it has. Where there is no memory,
 * what goes out is plain. */
#include <strings.h>

#include "curfew/http/gzip.h"
#include "curfew/http/items.h"
#include "curfew/http/negotiate.h"
#include "curfew/http/server_private.h"

/* Internal helpers */

static bool is_compressible(const char *type)
{
    static const char *const types[] = {"application/json", "application/x-ndjson"};
    struct cf__span rest = cf__span_of(type);
    struct cf__span name = {"", 0};

    (void)cf__item_next(&rest, ';', &name);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (cf__span_is(name, types[i])) {
            return true;
        }
    }
    return name.size > 5 && strncasecmp(name.at, "text/", 5) == 0;
}

/* What is sent, and of a 304 what the client has: of both forms the one that would be sent. */
static enum cf__coding choose(const struct cf_http *http, const struct cf__body *body)
{
    const char *etag = cf__reply_get_header(http, MHD_HTTP_HEADER_ETAG);
    enum cf__coding coding = cf__coding_of(http);

    if (coding == CF__PLAIN || body->status != MHD_HTTP_NOT_MODIFIED || etag == NULL) {
        return coding;
    }
    return cf__etags_had(http, etag) == CF__TAG_PLAIN ? CF__PLAIN : coding;
}

static void compress(struct cf_http *http, struct cf__body *body)
{
    struct cf__shard *shard = http->connection->shard;
    size_t room;
    size_t size;
    char *text;

    if (shard->gzip == NULL) {
        shard->gzip = cf__gzip_new(CF__GZIP_LEVEL_ONCE);
    }
    if (shard->gzip == NULL) {
        return;
    }
    room = cf__gzip_room(shard->gzip, body->size);
    text = cf__arena_alloc(&http->arena, room);
    if (text == NULL) {
        return;
    }
    size = cf__gzip(shard->gzip, body->data, body->size, text, room);
    if (size < body->size) {
        body->data = text;
        body->size = size;
        body->is_gzip = true;
    }
}

/* Operations */

void cf__encode(struct cf_http *http, struct cf__body *body)
{
    const struct cf_http_options *options = &http->connection->shard->server->options;
    const char *type = cf__reply_get_header(http, MHD_HTTP_HEADER_CONTENT_TYPE);
    enum cf__coding coding;

    if (body->type == NULL || !is_compressible(type != NULL ? type : body->type) ||
        cf__reply_get_header(http, MHD_HTTP_HEADER_CONTENT_ENCODING) != NULL ||
        options->gzip_size_min == SIZE_MAX) {
        return;
    }
    body->varies = true;
    coding = choose(http, body);
    if (coding == CF__PLAIN) {
        return;
    }
    if (http->gzip != NULL) {
        body->data = http->gzip;
        body->size = http->gzip_size;
        body->is_gzip = true;
    } else if (body->size <= options->gzip_size_max &&
               (body->size >= options->gzip_size_min || coding == CF__GZIP_ONLY)) {
        compress(http, body);
    }
}
