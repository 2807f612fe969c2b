/* SPDX-License-Identifier: MIT */
/* ?status=, of the lists of orders: see routes.h. */
#include "curfewd/routes/routes.h"

#include "curfewd/routes/choices.h"
#include "curfewd/store/status.h"

enum cf_code route_status(const struct cf_http *http, const char **out, struct cf_err *err)
{
    const char *text = cf_http_query(http, "status");
    char right[CHOICES_SIZE];

    if (text != NULL && !store_is_status(text)) {
        choices_list(store_statuses, STORE_STATUS_COUNT, right);
        return cf_err_set(err, CF_EINVAL, "status must be %s", right);
    }
    *out = text;
    return CF_OK;
}
