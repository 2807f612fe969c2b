/* SPDX-License-Identifier: MIT */
/* How long a request may take: the shortest of all that it asks for, under the caps of the server.
 *
 * There is no standard header, so all that are in use are understood. Request-Timeout-Ms and the
 * query argument `timeout` are ours: there a mistake is the client's, and said. The others come
 * from proxies and foreign clients: one that is malformed counts as absent.
 *
 * Invariant: who asks can only shorten. Durations, never instants: clocks differ.
 *
 *     cf__deadline_init(&deadline);
 *     code = cf__deadline_header(&deadline, "grpc-timeout", 12, "50m", err);
 *     cf__deadline_limit(&deadline, route_default_ns, route_max_ns);
 *
 * Thread safety: a value. */
#ifndef CURFEW_HTTP_DEADLINE_H
#define CURFEW_HTTP_DEADLINE_H

#include <curfew/err.h>

struct cf__deadline {
    int64_t timeout_ns; /* The shortest so far; CF_NEVER: nothing was asked. 0: none is left. */
    const char *source; /* Who asked for it; "default" when nobody did. Static. */
};

void cf__deadline_init(struct cf__deadline *deadline);

/* Take a header into account if it is one of a deadline; `size` is that of its name.
 * Fails with CF_EINVAL if it is Request-Timeout-Ms and malformed. */
CF_MUST enum cf_code cf__deadline_header(struct cf__deadline *deadline, const char *name,
                                         size_t size, const char *value, struct cf_err *err);

/* Take the query argument `timeout` into account: "50ms", "1.5s", "1m".
 * Fails with CF_EINVAL, naming the right form. */
CF_MUST enum cf_code cf__deadline_query(struct cf__deadline *deadline, const char *value,
                                        struct cf_err *err);

/* What to give: what was asked for or else `default_ns`, and never more than `max_ns`. */
void cf__deadline_limit(struct cf__deadline *deadline, int64_t default_ns, int64_t max_ns);

#endif
