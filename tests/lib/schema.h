/* SPDX-License-Identifier: MIT */
/* JSON against the schemas of our OpenAPI document: as much of JSON Schema as that one uses.
 *
 * Keywords that say nothing of a value (description, format, default) are passed over; one that is
 * not known fails the test, so that nothing is taken for checked that was not.
 *
 * Thread safety: any. */
#ifndef SCHEMA_H
#define SCHEMA_H

#include <jansson.h>
#include <stdbool.h>

#define SCHEMA_WHY_SIZE 256

/* Whether `value` is what `schema`, a part of `document`, says. If not, *why tells where. */
bool schema_has(const json_t *document, const json_t *schema, const json_t *value,
                char why[SCHEMA_WHY_SIZE]);

/* What "#/components/schemas/User" leads to; NULL: nothing. Borrowed from the document. */
json_t *schema_at(const json_t *document, const char *ref);

/* The same of an object that may be a reference itself. */
json_t *schema_resolve(const json_t *document, json_t *object);

#endif
