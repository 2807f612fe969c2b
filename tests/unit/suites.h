/* SPDX-License-Identifier: MIT */
/* The suites of the unit tests, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define SUITES(X)                                                                                  \
    X(err)                                                                                         \
    X(value)                                                                                       \
    X(clock)                                                                                       \
    X(ctx)                                                                                         \
    X(ctx_cancel)                                                                                  \
    X(ctx_after)                                                                                   \
    X(ctx_race)                                                                                    \
    X(ctx_tasks)                                                                                   \
    X(trace)                                                                                       \
    X(fiber)                                                                                       \
    X(loop)                                                                                        \
    X(turn)                                                                                        \
    X(loop_timer)                                                                                  \
    X(overflow)                                                                                    \
    X(wait)                                                                                        \
    X(waiting)                                                                                     \
    X(lane)                                                                                        \
    X(chan)                                                                                        \
    X(chan_select)                                                                                 \
    X(chan_stress)                                                                                 \
    X(group)                                                                                       \
    X(group_limit)                                                                                 \
    X(errgroup)                                                                                    \
    X(table)                                                                                       \
    X(flight)                                                                                      \
    X(flight_stress)                                                                               \
    X(singleflight)                                                                                \
    X(cache)                                                                                       \
    X(cache_reload)                                                                                \
    X(cache_stale)                                                                                 \
    X(cache_drop)                                                                                  \
    X(cache_stress)                                                                                \
    X(sieve)                                                                                       \
    X(pipeline)                                                                                    \
    X(pipeline_send)                                                                               \
    X(pipeline_end)                                                                                \
    X(sem)                                                                                         \
    X(rwmutex)                                                                                     \
    X(once)                                                                                        \
    X(limiter)                                                                                     \
    X(limiter_wait)                                                                                \
    X(json)                                                                                        \
    X(router)                                                                                      \
    X(target)                                                                                      \
    X(deadline)                                                                                    \
    X(problem)                                                                                     \
    X(address)                                                                                     \
    X(items)                                                                                       \
    X(date)                                                                                        \
    X(negotiate)                                                                                   \
    X(forwarded)                                                                                   \
    X(quota)                                                                                       \
    X(arena)                                                                                       \
    X(conninfo)                                                                                    \
    X(config)                                                                                      \
    X(config_file)                                                                                 \
    X(config_unknown)                                                                              \
    X(corpus)                                                                                      \
    X(log)                                                                                         \
    X(cpus)                                                                                        \
    X(paging)                                                                                      \
    X(csv)                                                                                         \
    X(images)                                                                                      \
    X(routes)                                                                                      \
    X(openapi)                                                                                     \
    X(dashboards)                                                                                  \
    X(store)                                                                                       \
    X(changes)                                                                                     \
    X(events)                                                                                      \
    X(reserve)

#endif
