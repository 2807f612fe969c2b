/* SPDX-License-Identifier: MIT */
/* What the programs of bench/ have in common: how they complain, what they start,
 * and how they sum up.
 *
 *     kit_begin("bench-dashboard", print_help);
 *     pid = start_service(bin, url, (const char *const[]){"CURFEW_LOOPS", "1", NULL}, &port);
 *     fd = open_client("curfewd", port);
 *
 * Thread safety: the main thread. */
#ifndef BENCH_KIT_H
#define BENCH_KIT_H

#include <getopt.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Life cycle */

/* Say who speaks, and how it is used. First of all. Both are kept. */
void kit_begin(const char *name, void (*print_help)(FILE *file));

/* Complain and exit: with 1; and with 2, and the help. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void misused(const char *what) __attribute__((noreturn));

/* Arguments */

/* What the programs that start a service are told. */
struct kit_arguments {
    const char *bin;
    const char *url;
    const char *peer; /* NULL: there is none. */
    size_t rounds;
};

/* Their places in getopt_long()'s table. */
#define KIT_OPTIONS                                                                                \
    {"bin", required_argument, NULL, 'b'}, {"url", required_argument, NULL, 'u'},                  \
        {"peer", required_argument, NULL, 'p'}, {"rounds", required_argument, NULL, 'r'},          \
    {                                                                                              \
        "help", no_argument, NULL, 'h'                                                             \
    }

/* Take one of them, with its value in optarg; another is a misuse. */
void kit_take(struct kit_arguments *arguments, int letter);

/* When all were read: bin and url have to be there, rounds from 1 to `rounds_max`. */
void kit_check(const struct kit_arguments *arguments, int argc, size_t rounds_max);

/* Operations */

/* Fork a child that ends with us. Returns its pid, and 0 in the child. */
pid_t start_child(void);

/* Start the service on ports of its own, with settings (name, value, ..., NULL) in its environment.
 * Returns its pid once it listens; *out_port is that of the API. */
pid_t start_service(const char *bin, const char *url, const char *const *settings,
                    uint16_t *out_port);

/* Start one of bench/peers/go, which finds its socket as descriptor 3, `url` in DATABASE_URL and
 * `input_fd` as its standard input. Returns its pid; it may not accept yet, but its socket
 * listens. */
pid_t start_peer(const char *path, const char *url, int input_fd, uint16_t *out_port);

/* Listen on a free port of this machine. Returns the socket. */
int open_listener(uint16_t *out_port);

/* Connect to a server that is called `name`, without Nagle's delay. Returns the socket. */
int open_client(const char *name, uint16_t port);

/* Queries */

/* For qsort(): of int64_t, upwards. */
int compare(const void *left, const void *right);

/* The smallest value that `p` per cent are not above. `values` are sorted. */
int64_t percentile(const int64_t *values, size_t n, size_t p);

#endif
