/* SPDX-License-Identifier: MIT */
/* Whether the head that libmicrohttpd shows is the one that came, byte for byte.
 *
 * Its parser (before 0.9.77) loses what it does not expect: a line that begins with a colon ends
 * the head, a folded line is put behind its header's *name*, a NUL ends a value or the target, a
 * line may end with LF alone. Whatever stands in front of this server may read such a head in
 * another way, and then what is one request there is two here. But it works in place: method,
 * target, version, names and values lie in its buffer as they came, with NULs where separators
 * were. So they are laid beside each other, and have to cover the head without a gap. (Lines in
 * front of a request that begin with a NUL are skipped there as if they were empty; nobody takes
 * those for a request.)
 *
 * Thread safety: none needed; the connection's loop. */
#ifndef CURFEW_HTTP_VERBATIM_H
#define CURFEW_HTTP_VERBATIM_H

#include <microhttpd.h>
#include <stdbool.h>

/* Whether the libmicrohttpd that runs has such a parser. */
bool cf__verbatim_needed(void);

enum cf__verbatim {
    CF__VERBATIM,
    CF__LINE_ALTERED, /* In the request line, before its end. */
    CF__HEAD_ALTERED, /* Behind that. */
};

/* For that one: where the first difference is. `method` and `version` as the access handler was
 * given them, `target` of `target_size` as it was shown before, all three where libmicrohttpd has
 * them. At the access handler's first call. */
enum cf__verbatim cf__head_verbatim(struct MHD_Connection *mhd, const char *method,
                                    const char *target, size_t target_size, const char *version);

#endif
