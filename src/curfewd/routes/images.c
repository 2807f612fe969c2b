/* SPDX-License-Identifier: MIT */
/* POST /v1/images, and GET /v1/images/{id}: what is known of one.
 *
 * The body is the image itself. What type it is, its content says and not its Content-Type; how
 * many pixels, its head, which is all of it that is read here: one that turns out to be broken
 * further down is told so when a thumbnail is made. Whatever is behind the picture is kept
 * as it came. */
#include <inttypes.h>
#include <stdio.h>

#include "curfewd/members.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/images.h"
#include "curfewd/thumbnails/thumbnails.h"

#define LOCATION_SIZE 40

static void write_image(struct cf_json *json, const struct store_image *image)
{
    cf_json_object(json);
    member_i64(json, "id", image->id);
    member_str(json, "type", image_media_type(image->head.type));
    member_u64(json, "width", image->head.width);
    member_u64(json, "height", image->head.height);
    member_u64(json, "bytes", image->size);
    member_time_us(json, "created_at", image->created_at_us);
    cf_json_end(json);
}

/* Whether it is one of those that we know, by its first bytes. */
static enum cf_code check_type(struct cf_http *http, const char *data, size_t size,
                               struct cf_err *err)
{
    enum image_type type;

    if (size == 0) {
        return cf_err_set(err, CF_EINVAL, "the body is empty, and should be an image");
    }
    if (image_sniff(data, size, &type)) {
        return CF_OK;
    }
    cf_http_reply_header(http, "Accept", "image/jpeg, image/png, image/webp");
    return cf_http_fail_as(http, 415,
                           cf_err_set(err, CF_EINVAL, "the body must be a JPEG, a PNG or a WebP"));
}

enum cf_code images_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    struct store_image image;
    struct image_head head;
    char location[LOCATION_SIZE];
    size_t size;
    const char *data = cf_http_body(http, &size);
    enum cf_code code = check_type(http, data, size, err);

    if (code != CF_OK) {
        return code;
    }
    code = thumbnails_read_head(ctx, app->thumbnails, data, size, &head, err);
    if (code == CF_EINVAL) {
        return cf_http_fail_as(http, 422, code);
    }
    if (code == CF_OK) {
        code = store_add_image(ctx, app->pg, &head, data, size, &image, err);
    }
    if (code != CF_OK) {
        return code;
    }
    (void)snprintf(location, sizeof(location), "/v1/images/%" PRId64, image.id);
    write_image(cf_http_reply_json(http, 201), &image);
    cf_http_reply_header(http, "Location", location);
    return CF_OK;
}

enum cf_code image_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct store_image image;
    int64_t id;
    enum cf_code code = cf_http_param_i64(http, "id", 1, INT64_MAX, &id, err);

    if (code == CF_OK) {
        code = store_image(ctx, route_pg(http), id, &image, err);
    }
    if (code == CF_OK) {
        write_image(cf_http_reply_json(http, 200), &image);
    }
    return code;
}
