/* SPDX-License-Identifier: MIT */
/* Pictures: whatever the bytes, there is a thumbnail as it was planned, or a refusal. */
#include "curfewd/images/image.h"

#include <stdlib.h>
#include <string.h>

#include "kit.h"

/* So that an input is decoded in a moment. */
#define PIXELS_MAX 250000
#define WIDTH 24

static void check_thumbnail(const struct image_thumbnail *thumbnail, const struct image_plan *plan)
{
    struct image_head head;
    struct cf_err err;

    FUZZ_CHECK(thumbnail->width == plan->width);
    FUZZ_CHECK(thumbnail->height == plan->height);
    FUZZ_CHECK(thumbnail->type == IMAGE_JPEG || thumbnail->type == IMAGE_PNG);
    FUZZ_CHECK(image_read_head(thumbnail->data, thumbnail->size, &head, &err) == CF_OK);
    FUZZ_CHECK(head.type == thumbnail->type);
    FUZZ_CHECK(head.width == plan->width);
    FUZZ_CHECK(head.height == plan->height);
}

FUZZ_TARGET(image)
{
    struct image_thumbnail thumbnail;
    struct image_head head;
    struct image_plan plan;
    enum image_type type;
    struct cf_err err;
    enum cf_code code = image_read_head(data, size, &head, &err);

    if (code != CF_OK) {
        FUZZ_CHECK(code == CF_EINVAL);
        FUZZ_CHECK(strlen(err.msg) > 0);
        return 0;
    }
    FUZZ_CHECK(image_sniff(data, size, &type));
    FUZZ_CHECK(type == head.type);
    FUZZ_CHECK(head.width >= 1 && head.width <= IMAGE_SIDE_MAX);
    FUZZ_CHECK(head.height >= 1 && head.height <= IMAGE_SIDE_MAX);
    code = image_plan(&head, size, WIDTH, &plan, &err);
    if (code != CF_OK || (size_t)head.width * head.height > PIXELS_MAX) {
        FUZZ_CHECK(code == CF_OK || code == CF_EINVAL);
        return 0;
    }
    code = image_make_thumbnail(cf_ctx_background(), data, size, &plan, &thumbnail, &err);
    if (code != CF_OK) {
        FUZZ_CHECK(code == CF_EINVAL);
        return 0;
    }
    check_thumbnail(&thumbnail, &plan);
    image_thumbnail_fini(&thumbnail);
    return 0;
}
