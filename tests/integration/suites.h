/* SPDX-License-Identifier: MIT */
/* The suites of the integration tests, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define WITNESSED

#define SUITES(X)                                                                                  \
    X(pg_types)                                                                                    \
    X(pg_stmt)                                                                                     \
    X(pg_query)                                                                                    \
    X(pg_cancel)                                                                                   \
    X(pg_control)                                                                                  \
    X(pg_pool)                                                                                     \
    X(pg_waiters)                                                                                  \
    X(pg_server)                                                                                   \
    X(pg_hosts)                                                                                    \
    X(pg_balancer)                                                                                 \
    X(pg_faults)                                                                                   \
    X(pg_tx)                                                                                       \
    X(pg_listen)                                                                                   \
    X(pg_stream)                                                                                   \
    X(pg_ways)                                                                                     \
    X(http)                                                                                        \
    X(http_refused)                                                                                \
    X(http_deadline)                                                                               \
    X(http_leave)                                                                                  \
    X(http_stop)                                                                                   \
    X(http_body)                                                                                   \
    X(http_limits)                                                                                 \
    X(http_wire)                                                                                   \
    X(http_slow)                                                                                   \
    X(http_gzip)                                                                                   \
    X(http_stream)                                                                                 \
    X(http_stream_client)                                                                          \
    X(http_trace)                                                                                  \
    X(client)                                                                                      \
    X(client_rules)                                                                                \
    X(client_trace)                                                                                \
    X(client_tls)

#endif
