/* SPDX-License-Identifier: MIT */
/* Users: see store.h. */
#include "curfewd/store/store.h"

#include <inttypes.h>

#include "curfewd/members.h"
#include "curfewd/store/outcome.h"

enum {
    USER_ID,
    USER_EMAIL,
    USER_NAME,
    USER_CREATED_AT
};

#define USER_COLUMNS "id, email, name, created_at"
#define USER_TYPES "ittz"

static const struct cf_pg_stmt find_user = {
    .name = "find_user",
    .sql = "SELECT " USER_COLUMNS " FROM users WHERE id = $1",
    .columns = USER_TYPES,
};

static const struct cf_pg_stmt newest_users = {
    .name = "newest_users",
    .sql = "SELECT " USER_COLUMNS " FROM users ORDER BY created_at DESC, id DESC LIMIT $1",
    .columns = USER_TYPES,
};

static const struct cf_pg_stmt page_of_users = {
    .name = "page_of_users",
    .sql = "SELECT " USER_COLUMNS " FROM users WHERE id > $1 ORDER BY id LIMIT $2",
    .columns = USER_TYPES,
};

enum cf_code store_user(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id, struct cf_pg_rows **out,
                        struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &find_user, params, 1, &rows, err);

    return store_one(code, rows, "user", id, out, err);
}

enum cf_code store_newest_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t limit,
                                struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &newest_users, params, 1, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "newest users");
}

enum cf_code store_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t after, int64_t limit,
                         struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(after), cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &page_of_users, params, 2, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "users after %" PRId64, after);
}

void store_write_user(struct cf_json *json, const struct cf_pg_rows *rows, size_t row)
{
    cf_json_object(json);
    member_i64(json, "id", cf_pg_get_i64(rows, row, USER_ID));
    member_str(json, "email", cf_pg_get_text(rows, row, USER_EMAIL));
    member_str(json, "name", cf_pg_get_text(rows, row, USER_NAME));
    member_time_us(json, "created_at", cf_pg_get_time_us(rows, row, USER_CREATED_AT));
    cf_json_end(json);
}
