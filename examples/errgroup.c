/* SPDX-License-Identifier: MIT */
/* A group: three things at once, and the first that fails cancels the others. */
#include <stdio.h>

#include <curfew/group.h>
#include <curfew/wait.h>

/* A source of data that answers after a while, or fails. */
struct source {
    const char *name;
    int64_t takes_ns;
    bool broken;
    char outcome[CF_ERR_MSG_SIZE];
};

static enum cf_code fetch(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct source *source = arg;
    enum cf_code code = cf_sleep(ctx, source->takes_ns, err);

    if (code == CF_OK && source->broken) {
        code = cf_err_set(err, CF_EUNAVAIL, "no connection");
    }
    (void)snprintf(source->outcome, sizeof(source->outcome), "%s",
                   code == CF_OK ? "fetched" : err->msg);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "fetch %s", source->name);
}

static enum cf_code fetch_all(struct cf_ctx *ctx, struct source sources[3], struct cf_err *err)
{
    struct cf_group *group;
    enum cf_code code = cf_group_new(ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    for (int i = 0; i < 3; i++) {
        cf_group_go(group, fetch, &sources[i]);
    }
    code = cf_group_wait(group, err); /* The first failure; and no task runs on. */
    cf_group_free(group);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "fetch the dashboard");
}

static void show(struct source sources[3])
{
    struct cf_err err;
    enum cf_code code = fetch_all(cf_ctx_background(), sources, &err);

    printf("%s\n", code == CF_OK ? "all three" : err.msg);
    for (int i = 0; i < 3; i++) {
        printf("  %-8s %s\n", sources[i].name, sources[i].outcome);
    }
}

int main(void)
{
    struct source fine[] = {{"users", 1 * CF_MS, false, ""},
                            {"orders", 2 * CF_MS, false, ""},
                            {"metrics", 3 * CF_MS, false, ""}};
    struct source broken[] = {{"users", 10 * CF_SECOND, false, ""},
                              {"orders", 1 * CF_MS, true, ""},
                              {"metrics", 10 * CF_SECOND, false, ""}};

    show(fine);
    show(broken);
    return 0;
}
