/* SPDX-License-Identifier: MIT */
/* The service's configuration: flag, else environment variable, else default, from one table. */
#ifndef CURFEWD_CONFIG_H
#define CURFEWD_CONFIG_H

#include <stdio.h>

#include <curfew/err.h>
#include <curfew/pg.h>

/* Constant after config_load(). Strings are static, of argv or of the environment. */
struct config {
    const char *listen;
    const char *admin;
    const char *database_url; /* "": libpq's PG* variables. */
    int64_t pool;             /* Connections for queries, of the whole process. */
    int64_t loops;            /* 0: as many as the machine and the pool bear. */
    int64_t cancel;           /* enum cf_pg_cancel_way */
    int64_t default_timeout_ns;
    int64_t max_timeout_ns;
    int64_t grace_ns;
    int64_t idle_timeout_ns;
    int64_t head_timeout_ns;
    int64_t body_timeout_ns;
    int64_t send_timeout_ns;
    int64_t in_flight;
    int64_t waiters; /* Queries that wait for a connection, of a loop. 0: as many as requests. */
    int64_t connections;
    int64_t connections_per_address; /* 0: as many as there are. */
    const char *trusted_proxies;     /* "": none. */
    const char *admin_hosts;         /* "": only localhost and addresses. */
    int64_t head_size;
    int64_t target_size;
    int64_t fields;
    int64_t body_size;
    int64_t bodies_size;
    bool half_close;
    bool demo;
};

enum config_outcome {
    CONFIG_OK,
    CONFIG_HELP,    /* --help: print it and leave with 0. */
    CONFIG_VERSION, /* --version: the same. */
    CONFIG_USAGE,   /* A flag is wrong: exit status 2. */
    CONFIG_BAD,     /* A value is wrong: exit status 78. */
};

/* Read flags and environment into *out. On USAGE and BAD `err` says what is wrong and what is right. */
enum config_outcome config_load(int argc, char **argv, struct config *out, struct cf_err *err);

void config_print_help(FILE *file);

#endif
