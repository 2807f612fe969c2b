/* SPDX-License-Identifier: MIT */
/* Parameters as PostgreSQL wants them, and the statements that a connection has prepared. */
#include "curfew/pg/conn_private.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/pg/types.h"

/* Internal helpers */

/* Both ends of the range are infinite, there as here; what lies before their first is sent as
 * something that the server refuses. */
static int64_t time_to_wire(int64_t unix_us)
{
    int64_t us;

    if (unix_us == INT64_MAX || unix_us == INT64_MIN) {
        return unix_us;
    }
    return __builtin_sub_overflow(unix_us, EPOCH_2000_US, &us) ? INT64_MIN + 1 : us;
}

/* Room to remember one more statement. */
static bool reserve_prepared(struct cf__pg_conn *conn)
{
    size_t capacity = conn->prepared_capacity == 0 ? 16 : 2 * conn->prepared_capacity;
    struct cf__pg_prepared *prepared;

    if (conn->n_prepared < conn->prepared_capacity) {
        return true;
    }
    prepared = realloc(conn->prepared, capacity * sizeof(*prepared));
    if (prepared == NULL) {
        return false;
    }
    conn->prepared = prepared;
    conn->prepared_capacity = capacity;
    return true;
}

/* Whether a parameter of the type that was prepared can be what is sent now. One that was NULL then
 * has the type that the server found fit, which may be narrower than what we send. */
static bool suits(const struct cf__pg_prepared *prepared, const struct cf__pg_wire *wire,
                  size_t n_params)
{
    for (size_t i = 0; i < n_params; i++) {
        if (wire->types[i] != 0 && wire->types[i] != prepared->types[i]) {
            return false;
        }
    }
    return true;
}

/* Operations */

void cf__pg_encode(const struct cf_pg_param *params, size_t n_params, struct cf__pg_wire *wire)
{
    for (size_t i = 0; i < n_params; i++) {
        const struct cf_pg_param *param = &params[i];

        wire->formats[i] = 1;
        wire->lengths[i] = sizeof(wire->words[i]);
        wire->values[i] = (const char *)&wire->words[i];
        switch (param->type) {
        case CF_PG_NULL:
            wire->types[i] = 0;
            wire->values[i] = NULL;
            break;
        case CF_PG_I64:
            wire->types[i] = OID_INT8;
            wire->words[i] = htobe64((uint64_t)param->as.i64);
            break;
        case CF_PG_F64:
            wire->types[i] = OID_FLOAT8;
            memcpy(&wire->words[i], &param->as.f64, sizeof(wire->words[i]));
            wire->words[i] = htobe64(wire->words[i]);
            break;
        case CF_PG_TIME:
            wire->types[i] = OID_TIMESTAMPTZ;
            wire->words[i] = htobe64((uint64_t)time_to_wire(param->as.i64));
            break;
        case CF_PG_TEXT:
            wire->types[i] = OID_TEXT;
            wire->values[i] = param->as.text;
            wire->lengths[i] = (int)strlen(param->as.text);
            break;
        case CF_PG_BYTES:
            CF_ASSERT(param->as.bytes.size <= CF_PG_BYTES_MAX);
            wire->types[i] = OID_BYTEA;
            wire->values[i] = param->as.bytes.size > 0 ? param->as.bytes.data : "";
            wire->lengths[i] = (int)param->as.bytes.size;
            break;
        }
    }
}

bool cf__pg_find_prepared(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                          const struct cf__pg_wire *wire, size_t n_params, size_t *out)
{
    struct cf__pg_prepared next = {.stmt = stmt, .version = 1};

    for (size_t i = 0; i < conn->n_prepared; i++) {
        const struct cf__pg_prepared *prepared = &conn->prepared[i];

        if (prepared->stmt != stmt) {
            continue;
        }
        if (!prepared->is_stale && suits(prepared, wire, n_params)) {
            *out = i;
            return true;
        }
        next = *prepared;
        next.version++;
        next.is_stale = false;
    }
    for (size_t i = 0; i < n_params; i++) {
        next.types[i] = wire->types[i] != 0 ? wire->types[i] : next.types[i];
    }
    if (!reserve_prepared(conn)) {
        return false;
    }
    conn->prepared[conn->n_prepared] = next;
    *out = conn->n_prepared;
    return true;
}

void cf__pg_put_name(const struct cf__pg_prepared *prepared, char out[CF__PG_NAME_SIZE])
{
    if (prepared->version == 1) {
        (void)snprintf(out, CF__PG_NAME_SIZE, "%s", prepared->stmt->name);
    } else {
        (void)snprintf(out, CF__PG_NAME_SIZE, "%u_%s", prepared->version, prepared->stmt->name);
    }
}
