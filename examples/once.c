/* SPDX-License-Identifier: MIT */
/* Once: the first of many callers opens the database, the others wait for it, each no longer than
 * its own context. A failure is not for ever. */
#include <stdio.h>

#include <curfew/group.h>
#include <curfew/loop.h>
#include <curfew/once.h>
#include <curfew/wait.h>

struct db {
    int opened; /* How often it was tried. */
};

static struct cf_once once;
static struct db db;

/* It is down the first time. */
static enum cf_code open_db(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct db *self = arg;
    enum cf_code code = cf_sleep(ctx, 10 * CF_MS, err);

    self->opened++;
    if (code == CF_OK && self->opened == 1) {
        code = cf_err_set(err, CF_EUNAVAIL, "the database is starting up");
    }
    return code;
}

static enum cf_code get_db(struct cf_ctx *ctx, struct db **out, struct cf_err *err)
{
    enum cf_code code = cf_once_retry(ctx, &once, open_db, &db, err);

    if (code == CF_OK) {
        *out = &db;
    }
    return code;
}

struct count {
    int fine;
    int failed;
};

static enum cf_code serve(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct count *count = arg;
    struct db *got;

    if (get_db(ctx, &got, err) == CF_OK) {
        count->fine++;
    } else {
        count->failed++;
    }
    return CF_OK;
}

static void serve_a_thousand(void)
{
    struct count count = {.fine = 0};
    struct cf_group *group;

    if (cf_group_new(cf_ctx_background(), &group, NULL) != CF_OK) {
        return;
    }
    for (int i = 0; i < 1000; i++) {
        cf_group_go(group, serve, &count);
    }
    if (cf_group_wait(group, NULL) == CF_OK) {
        printf("%d got it, %d did not; opened %d times\n", count.fine, count.failed, db.opened);
    }
    cf_group_free(group);
}

/* One who does not wait for so long. */
static void serve_the_impatient(void)
{
    struct cf_ctx *brief;
    struct cf_err err;
    struct db *got;

    if (cf_ctx_with_timeout(cf_ctx_background(), CF_MS, &brief, NULL) != CF_OK) {
        return;
    }
    if (get_db(brief, &got, &err) != CF_OK) {
        printf("within 1 ms: %s\n", err.msg);
    }
    cf_ctx_free(brief);
}

static void run(void *arg)
{
    (void)arg;
    serve_a_thousand(); /* One tries, and all who wait for it are told. */
    serve_the_impatient();
    serve_a_thousand();
    serve_a_thousand(); /* It is open. */
}

int main(void)
{
    struct cf_loop *loop;

    if (cf_loop_new(NULL, &loop, NULL) != CF_OK || cf_loop_call(loop, run, NULL, NULL) != CF_OK) {
        return 1;
    }
    cf_loop_free(loop);
    return 0;
}
