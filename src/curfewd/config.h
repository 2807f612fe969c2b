/* SPDX-License-Identifier: MIT */
/* The service's configuration: flag, else environment variable, else --config's file, else default,
 * from one table.
 *
 * Only the value that wins is looked at: a flag helps against a bad variable. */
#ifndef CURFEWD_CONFIG_H
#define CURFEWD_CONFIG_H

#include <stdbool.h>
#include <stdio.h>

#include <curfew/err.h>
#include <curfew/pg.h>

/* Settings that the table may have. */
#define CONFIG_SETTINGS_MAX 64

/* Event loops that it may ask for. */
#define CONFIG_LOOPS_MAX 256

/* "a/long/path:65536: CURFEW_SETTING" */
#define CONFIG_NAME_SIZE 192

/* Of the names that config_unknown() lists. */
#define CONFIG_UNKNOWN_SIZE 512

struct config_text;

/* Where a value came from; each wins over those before. */
enum config_door {
    CONFIG_DEFAULT,
    CONFIG_FILE,
    CONFIG_ENVIRONMENT,
    CONFIG_FLAG,
};

/* A value as it was given. */
struct config_value {
    const char *text; /* The path, if it is one. */
    enum config_door door;
    unsigned line; /* In --config's file. */
    bool is_path;  /* Of a file that holds the value. */
};

/* Constant after config_load(). Strings are static, of argv, of the environment or of `texts`. */
struct config {
    const char *listen;
    const char *admin;
    const char *database_url;    /* "": libpq's PG* variables. */
    const char *trusted_proxies; /* "": none. */
    const char *admin_hosts;     /* "": only localhost and addresses. */
    const char *fetch_allow;     /* Rules as client.h has them. "": nothing is fetched. */
    int64_t pool;                /* Connections for queries, of the whole process. */
    int64_t loops;               /* 0: as many as the machine and the pool bear. */
    int64_t cancel;              /* enum cf_pg_cancel_way */
    int64_t default_timeout_ns;
    int64_t max_timeout_ns;
    int64_t export_timeout_ns;
    int64_t exports;
    int64_t grace_ns;
    int64_t idle_timeout_ns;
    int64_t head_timeout_ns;
    int64_t body_timeout_ns;
    int64_t send_timeout_ns;
    int64_t in_flight;
    int64_t waiters; /* Queries that wait for a connection, of a loop. 0: as many as requests. */
    int64_t connections;
    int64_t connections_per_address; /* 0: as many as there are. */
    int64_t head_size;
    int64_t target_size;
    int64_t fields;
    int64_t body_size;
    int64_t bodies_size;
    int64_t image_size;
    int64_t image_pixels;
    int64_t image_memory;
    int64_t image_threads; /* 0: as many as there are processors. */
    int64_t cache_ttl_ns;  /* 0: nothing is kept. */
    int64_t cache_stale_ns;
    int64_t cache_stale_if_error_ns;
    int64_t cache_negative_ttl_ns;
    int64_t cache_entries;
    int64_t cache_size;
    int64_t idempotency_ttl_ns;
    bool notify;
    bool half_close;
    bool core_dumps;
    bool demo;

    struct config_value values[CONFIG_SETTINGS_MAX]; /* In the order of the table. */
    const char *file;                                /* --config's, or NULL. */
    struct config_text *texts;                       /* Owned: config_free(). */
};

enum config_outcome {
    CONFIG_OK,
    CONFIG_HELP,    /* --help: print it and leave with 0. */
    CONFIG_VERSION, /* --version: the same. */
    CONFIG_DUMP,    /* --dump-config: the same; *out is as with OK. */
    CONFIG_READY,   /* --ready: ask the service that runs with these settings; the same. */
    CONFIG_USAGE,   /* A flag is wrong: exit status 2. */
    CONFIG_BAD,     /* A value is wrong: exit status 78. Or there was no memory: 1. */
};

/* Read flags, environment and --config's file into *out, and libpq's PG* variables that the file
 * has into the environment, if they are not there. On USAGE and BAD `err` says what is wrong and
 * what is right, and *out is untouched.
 * Ownership: the caller owns what *out holds: config_free(). */
enum config_outcome config_load(int argc, char **argv, struct config *out, struct cf_err *err);
void config_free(struct config *config);

/* How a message names the setting that `field`, a member of *config, is the value of: as it was
 * given, "--listen", "CURFEW_LISTEN", or "FILE:3: CURFEW_LISTEN". Returns `out`. */
const char *config_name(const struct config *config, const void *field, char out[CONFIG_NAME_SIZE]);

/* List the variables of the environment that begin with CURFEW_ and are neither settings nor what
 * Kubernetes makes for a service of that name: "CURFEW_POOl, CURFEW_POOLS", cut by "..." if they
 * are too many. Returns whether there are any. */
bool config_unknown(char out[CONFIG_UNKNOWN_SIZE]);

/* Print every setting with its value, secrets masked, and where it came from:
 * a file for --config. */
void config_dump(const struct config *config, FILE *file);

void config_print_help(FILE *file);

#endif
