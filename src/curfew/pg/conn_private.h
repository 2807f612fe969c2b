/* SPDX-License-Identifier: MIT */
/* What the files of one connection share: socket.c, session.c, prepared.c, conn.c. All of it
 * belongs to the thread of the connection's loop. */
#ifndef CURFEW_PG_CONN_PRIVATE_H
#define CURFEW_PG_CONN_PRIVATE_H

#include "curfew/pg/pg_private.h"

/* socket.c */

/* Begin to look at the socket of a connection that has logged in. */
CF_MUST enum cf_code cf__pg_conn_watch(struct cf__pg_conn *conn, struct cf_err *err);

/* End that, if libpq has closed the socket: before anybody else runs. */
void cf__pg_conn_watch_no_more(struct cf__pg_conn *conn);

/* Write what libpq holds, and be told when the socket takes more. */
void cf__pg_conn_flush(struct cf__pg_conn *conn);

/* Whether more input is needed before there is an answer to take. */
bool cf__pg_conn_is_busy(struct cf__pg_conn *conn);

/* Hand out what has come, or a server could fill our memory with these. */
void cf__pg_conn_take_notifications(struct cf__pg_conn *conn);

/* Wait for input that makes a whole answer, or for the end. Blocks: for that, under `ctx`. */
CF_MUST enum cf_code cf__pg_conn_wait_input(struct cf_ctx *ctx, struct cf__pg_conn *conn,
                                            struct cf_err *err);

/* session.c */

/* A statement_timeout in the server's unit and range, where 0 would mean none. */
int64_t cf__pg_timeout_ms(int64_t timeout_ns);

/* prepared.c */

/* The server's NAMEDATALEN: longer names are cut there. */
#define CF__PG_NAME_SIZE 64

/* Parameters as libpq wants them. */
struct cf__pg_wire {
    Oid types[CF_PG_PARAMS_MAX];
    const char *values[CF_PG_PARAMS_MAX];
    int lengths[CF_PG_PARAMS_MAX];
    int formats[CF_PG_PARAMS_MAX];
    uint64_t words[CF_PG_PARAMS_MAX]; /* What `values` of fixed size point to. */
};

/* Texts and bytes stay the caller's, and have to live as long as *wire is used. */
void cf__pg_encode(const struct cf_pg_param *params, size_t n_params, struct cf__pg_wire *wire);

/* Find the statement among the prepared. If it is not there in a form that suits, the entry behind
 * the last is made up for it, which becomes one of them when the server agrees. False: no memory. A
 * form takes over the types that an older one knew, so there are few. */
CF_MUST bool cf__pg_find_prepared(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                                  const struct cf__pg_wire *wire, size_t n_params, size_t *out);

/* Its name on the server. The version is in front, because the server cuts what is too long. */
void cf__pg_put_name(const struct cf__pg_prepared *prepared, char out[CF__PG_NAME_SIZE]);

#endif
