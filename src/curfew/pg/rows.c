/* SPDX-License-Identifier: MIT */
/* Rows, in binary: a struct cf_pg_rows is libpq's PGresult under a name of ours. */
#include <curfew/pg.h>

#include <endian.h>
#include <string.h>

#include <libpq-fe.h>

#include "curfew/pg/pg_private.h"
#include "curfew/pg/types.h"

/* Internal helpers */

static const PGresult *result_of(const struct cf_pg_rows *rows)
{
    return (const PGresult *)rows;
}

/* The bytes of a field, or NULL for an SQL NULL. */
static const char *field(const struct cf_pg_rows *rows, size_t row, size_t column)
{
    const PGresult *result = result_of(rows);

    CF_ASSERT(row < (size_t)PQntuples(result));
    CF_ASSERT(column < (size_t)PQnfields(result));
    if (PQgetisnull(result, (int)row, (int)column)) {
        return NULL;
    }
    return PQgetvalue(result, (int)row, (int)column);
}

static int64_t read_i64(const char *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, sizeof(value));
    return (int64_t)be64toh(value);
}

/* Infinite there is the end of the range here; so is what is later than fits. */
static int64_t time_from_wire(int64_t us)
{
    int64_t unix_us;

    if (us == INT64_MIN) {
        return us;
    }
    return __builtin_add_overflow(us, EPOCH_2000_US, &unix_us) ? INT64_MAX : unix_us;
}

/* Whether a column of this type may be read as that. */
static bool is_read_as(Oid type, char letter)
{
    switch (letter) {
    case 'i':
        return type == OID_INT8 || type == OID_INT4 || type == OID_INT2;
    case 't':
        return type == OID_TEXT || type == OID_VARCHAR || type == OID_NAME || type == OID_BPCHAR ||
               type == OID_UNKNOWN;
    case 'b':
        return type == OID_BYTEA;
    default:
        CF_ASSERT(letter == 'z');
        return type == OID_TIMESTAMPTZ;
    }
}

/* Bytes of a value that is not NULL. 0: as many as it has. */
static int size_of(Oid type)
{
    switch (type) {
    case OID_INT2:
        return 2;
    case OID_INT4:
        return 4;
    case OID_INT8:
    case OID_TIMESTAMPTZ:
        return 8;
    default:
        return 0;
    }
}

static bool has_sizes(const PGresult *result, int column)
{
    int size = size_of(PQftype(result, column));

    for (int row = 0; size > 0 && row < PQntuples(result); row++) {
        if (!PQgetisnull(result, row, column) && PQgetlength(result, row, column) != size) {
            return false;
        }
    }
    return true;
}

enum cf_code cf__pg_rows_check(const PGresult *result, const struct cf_pg_stmt *stmt,
                               struct cf_err *err)
{
    int n = PQnfields(result);

    if (stmt->columns == NULL) {
        return CF_OK;
    }
    if ((size_t)n != strlen(stmt->columns)) {
        return cf_err_set(err, CF_EINTERNAL, "%s has %d columns, not %zu", stmt->name, n,
                          strlen(stmt->columns));
    }
    for (int i = 0; i < n; i++) {
        Oid type = PQftype(result, i);

        if (PQfformat(result, i) != 1 || !is_read_as(type, stmt->columns[i]) ||
            !has_sizes(result, i)) {
            return cf_err_set(err, CF_EINTERNAL, "%s: column %d is of type %u, which is not '%c'",
                              stmt->name, i + 1, type, stmt->columns[i]);
        }
    }
    return CF_OK;
}

/* Life cycle */

void cf_pg_rows_free(struct cf_pg_rows *rows)
{
    PQclear((PGresult *)rows); /* NULL is allowed. */
}

/* Queries */

size_t cf_pg_rows_count(const struct cf_pg_rows *rows)
{
    return (size_t)PQntuples(result_of(rows));
}

bool cf_pg_is_null(const struct cf_pg_rows *rows, size_t row, size_t column)
{
    return field(rows, row, column) == NULL;
}

int64_t cf_pg_get_i64(const struct cf_pg_rows *rows, size_t row, size_t column)
{
    const char *bytes = field(rows, row, column);
    uint16_t i16;
    uint32_t i32;

    switch (PQftype(result_of(rows), (int)column)) {
    case OID_INT8:
        return bytes != NULL ? read_i64(bytes) : 0;
    case OID_INT4:
        if (bytes == NULL) {
            return 0;
        }
        memcpy(&i32, bytes, sizeof(i32));
        return (int32_t)be32toh(i32);
    case OID_INT2:
        if (bytes == NULL) {
            return 0;
        }
        memcpy(&i16, bytes, sizeof(i16));
        return (int16_t)be16toh(i16);
    default:
        CF_ASSERT(!"the column is no integer");
    }
    return 0;
}

const char *cf_pg_get_text(const struct cf_pg_rows *rows, size_t row, size_t column)
{
    const char *bytes = field(rows, row, column);

    CF_ASSERT(is_read_as(PQftype(result_of(rows), (int)column), 't'));
    return bytes != NULL ? bytes : ""; /* libpq puts a NUL behind every value. */
}

const void *cf_pg_get_bytes(const struct cf_pg_rows *rows, size_t row, size_t column,
                            size_t *out_size)
{
    const char *bytes = field(rows, row, column);

    CF_ASSERT(is_read_as(PQftype(result_of(rows), (int)column), 'b'));
    *out_size = (size_t)PQgetlength(result_of(rows), (int)row, (int)column); /* Of NULL: 0. */
    return bytes != NULL ? bytes : "";
}

int64_t cf_pg_get_time_us(const struct cf_pg_rows *rows, size_t row, size_t column)
{
    const char *bytes = field(rows, row, column);

    CF_ASSERT(PQftype(result_of(rows), (int)column) == OID_TIMESTAMPTZ);
    return bytes != NULL ? time_from_wire(read_i64(bytes)) : 0;
}
