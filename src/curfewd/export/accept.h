/* SPDX-License-Identifier: MIT */
/* What a client's Accept header says of a media type (RFC 9110, 12.5.1). */
#ifndef CURFEWD_EXPORT_ACCEPT_H
#define CURFEWD_EXPORT_ACCEPT_H

/* How much `type` ("text/csv") is wanted, in thousandths: what the most specific range that matches
 * says, 0 if none does. No header, and one that cannot be read, wants everything. */
int accept_quality(const char *accept, const char *type);

#endif
