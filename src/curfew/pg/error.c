/* SPDX-License-Identifier: MIT */
/* What PostgreSQL says, as an error of ours: the code from the SQLSTATE, the text as it came.
 *
 * The SQLSTATE can be missing everywhere: an error that libpq makes itself, such as a connection
 * that broke, has none. */
#include "curfew/pg/pg_private.h"

#include <string.h>

#include "curfew/pg/sqlstate.h"

/* Internal helpers */

static bool in_class(const char *sqlstate, const char *class)
{
    return strncmp(sqlstate, class, strlen(class)) == 0;
}

static enum cf_code code_of(const char *sqlstate)
{
    static const struct {
        const char *class;
        enum cf_code code;
    } map[] = {
        {CF__SQLSTATE_QUERY_CANCELED,
         CF_EDEADLINE}, /* Nobody here asked: the server's own timeout. */
        {"08P01",
         CF_EINTERNAL}, /* A message that the server cannot take, such as too few parameters. */
        {"08", CF_EUNAVAIL},     /* Connection. */
        {"53", CF_EUNAVAIL},     /* Out of resources: connections, memory, disk. */
        {"57P", CF_EUNAVAIL},    /* Shut down, crashed, starting. */
        {"25006", CF_EUNAVAIL},  /* Read-only: a standby. */
        {"23505", CF_ECONFLICT}, /* Unique. */
        {"23503", CF_ECONFLICT}, /* Foreign key. */
        {"40", CF_ECONFLICT},    /* Serialization, deadlock. */
        {"22", CF_EINVAL},       /* Data. */
        {"23502", CF_EINVAL},    /* Not null. */
        {"23514", CF_EINVAL},    /* Check. */
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        if (in_class(sqlstate, map[i].class)) {
            return map[i].code;
        }
    }
    return CF_EINTERNAL;
}

/* The first line of a text of libpq's, without what ends it. */
static int first_line(const char *text)
{
    return (int)strcspn(text, "\n");
}

/* Operations */

void cf__pg_err_from_result(const PGresult *result, struct cf_err *err)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *text = primary != NULL ? primary : PQresultErrorMessage(result);
    enum cf_code code = sqlstate != NULL ? code_of(sqlstate) : CF_EUNAVAIL;

    if (text[0] == '\0') {
        text = "PostgreSQL gave no reason";
    }
    (void)cf_err_set(err, code, "%.*s", first_line(text), text);
    if (sqlstate != NULL) {
        (void)strncpy(err->sqlstate, sqlstate, sizeof(err->sqlstate) - 1);
    }
}

enum cf_code cf__pg_err_from_conn(PGconn *pq, const char *what, struct cf_err *err)
{
    const char *text = PQerrorMessage(pq);

    if (text == NULL || text[0] == '\0') {
        return cf_err_set(err, CF_EUNAVAIL, "%s: the connection has ended", what);
    }
    return cf_err_set(err, CF_EUNAVAIL, "%s: %.*s", what, first_line(text), text);
}

/* Queries */

bool cf__pg_is_last_word(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}
