/* SPDX-License-Identifier: MIT */
/* Rate limiters: see limiter.h for the contract, golang.org/x/time/rate for the model.
 *
 * The bucket is not filled by a timer: how many tokens it has follows from how many it had, and how
 * long ago that was. A wait is a reservation and a sleep. So nobody queues here, and a limiter
 * costs nothing while it is not used.
 *
 * The clock is read under the lock. Read before it, two threads could be served in the other order
 * than they had looked, and the time between would flow in twice.
 *
 * Lock order: mu, then what the clock takes (a loop's and the timer thread's take nothing). */
#include <curfew/limiter.h>

#include <pthread.h>
#include <stdlib.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

struct cf_limiter {
    pthread_mutex_t mu;    /* Guards everything below. */
    double per_second;     /* 0 <= per_second <= CF_LIMITER_INFINITE. */
    int burst;             /* >= 0 */
    double tokens;         /* At last_ns. <= burst; less than zero: reserved ahead. */
    int64_t last_ns;       /* When `tokens` was set. */
    int64_t last_event_ns; /* When the latest event was or will be that took a token. */
};

/* Internal helpers */

static int64_t now_ns(void)
{
    struct cf_timer_source *source = cf_timer_source();

    return source->now_ns(source);
}

/* A rate to calculate with: infinity times no time would be no number. */
static double tame(double per_second)
{
    if (!(per_second > 0)) { /* Nor is it no number. */
        return 0;
    }
    return per_second < CF_LIMITER_INFINITE ? per_second : CF_LIMITER_INFINITE;
}

/* How many tokens flow in during `period_ns`, at that rate. */
static double tokens_in(double per_second, int64_t period_ns)
{
    /* Apart from the rest, because a double has no room for the nanoseconds of many days. */
    int64_t seconds = period_ns / CF_SECOND;

    return ((double)seconds + (double)(period_ns % CF_SECOND) / 1e9) * per_second;
}

/* How long it takes until so many tokens have flown in, or CF_NEVER. What is left of a token after
 * calculating, less than flows in during a nanosecond, takes no time. */
static int64_t time_for(double per_second, double tokens)
{
    double period_ns;

    if (per_second <= 0) {
        return CF_NEVER;
    }
    period_ns = tokens / per_second * 1e9;
    return period_ns < (double)CF_NEVER ? (int64_t)period_ns : CF_NEVER;
}

/* The tokens at that time. A clock that went back brings none, and takes none. With mu held. */
static double tokens_at(const struct cf_limiter *limiter, int64_t at_ns)
{
    int64_t elapsed_ns = at_ns > limiter->last_ns ? at_ns - limiter->last_ns : 0;
    double tokens = limiter->tokens + tokens_in(limiter->per_second, elapsed_ns);

    return tokens < limiter->burst ? tokens : limiter->burst;
}

/* Put that many tokens into the bucket. With mu held. */
static void set_tokens(struct cf_limiter *limiter, double tokens, int64_t at_ns)
{
    limiter->tokens = tokens < limiter->burst ? tokens : limiter->burst;
    limiter->last_ns = at_ns;
}

enum verdict {
    GRANTED,
    TOO_LATE, /* Not within the longest delay. */
    TOO_MANY, /* More than the burst. */
};

/* Take `n` tokens if they are there within `delay_max_ns`. *out_delay_ns says after what time, also
 * if that is too late. */
static enum verdict reserve(struct cf_limiter *limiter, int n, int64_t delay_max_ns,
                            struct cf_reservation *out, int64_t *out_delay_ns)
{
    enum verdict verdict = GRANTED;
    int64_t delay_ns = 0;
    int64_t now;

    CF_ASSERT(n >= 0);
    (void)pthread_mutex_lock(&limiter->mu);
    now = now_ns();
    if (limiter->per_second >= CF_LIMITER_INFINITE) {
        n = 0; /* Nothing is counted, so nothing can be given back. */
    } else {
        double tokens = tokens_at(limiter, now) - n;

        if (tokens < 0) {
            delay_ns = time_for(limiter->per_second, -tokens);
        }
        if (n > limiter->burst) {
            verdict = TOO_MANY;
        } else if (delay_ns > delay_max_ns) {
            verdict = TOO_LATE;
        } else {
            set_tokens(limiter, tokens, now);
            limiter->last_event_ns = cf_deadline_in(now, delay_ns);
        }
    }
    *out = (struct cf_reservation){limiter, n, cf_deadline_in(now, delay_ns), limiter->per_second};
    *out_delay_ns = delay_ns;
    (void)pthread_mutex_unlock(&limiter->mu);
    return verdict;
}

/* Give back what was reserved, but for the tokens that flow in between its time and that of the
 * latest reservation: those depend on them. If its holder may have acted, not after its time. */
static void give_back(struct cf_reservation *reservation, bool may_have_acted)
{
    struct cf_limiter *limiter = reservation->limiter;
    int64_t at_ns = reservation->at_ns;
    int64_t before_ns; /* When the reservation before it is due, if it was the latest. */
    int64_t now;
    double tokens = reservation->tokens;

    before_ns = cf_deadline_in(at_ns, -time_for(reservation->per_second, tokens));
    reservation->tokens = 0;
    (void)pthread_mutex_lock(&limiter->mu);
    now = now_ns();
    if (limiter->last_event_ns > at_ns) {
        tokens -= tokens_in(reservation->per_second, limiter->last_event_ns - at_ns);
    }
    if (tokens > 0 && !(may_have_acted && at_ns < now)) {
        set_tokens(limiter, tokens_at(limiter, now) + tokens, now);
        if (at_ns == limiter->last_event_ns && before_ns >= now) {
            limiter->last_event_ns = before_ns;
        }
    }
    (void)pthread_mutex_unlock(&limiter->mu);
}

/* Life cycle */

enum cf_code cf_limiter_new(double per_second, int burst, struct cf_limiter **out,
                            struct cf_err *err)
{
    struct cf_limiter *limiter = malloc(sizeof(*limiter));

    if (limiter == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a limiter");
    }
    (void)pthread_mutex_init(&limiter->mu, NULL);
    limiter->per_second = tame(per_second);
    limiter->burst = burst > 0 ? burst : 0;
    limiter->tokens = limiter->burst;
    limiter->last_ns = now_ns();
    limiter->last_event_ns = limiter->last_ns;
    *out = limiter;
    return CF_OK;
}

void cf_limiter_free(struct cf_limiter *limiter)
{
    if (limiter == NULL) {
        return;
    }
    (void)pthread_mutex_destroy(&limiter->mu);
    free(limiter);
}

/* Operations */

bool cf_limiter_allow(struct cf_limiter *limiter, int n)
{
    struct cf_reservation reservation;
    int64_t delay_ns;

    return reserve(limiter, n, 0, &reservation, &delay_ns) == GRANTED;
}

bool cf_limiter_reserve(struct cf_limiter *limiter, int n, struct cf_reservation *out)
{
    struct cf_reservation reservation;
    int64_t delay_ns;

    if (reserve(limiter, n, CF_NEVER, &reservation, &delay_ns) != GRANTED) {
        return false;
    }
    *out = reservation;
    return true;
}

void cf_reservation_cancel(struct cf_reservation *reservation)
{
    give_back(reservation, true);
}

enum cf_code cf_limiter_wait(struct cf_ctx *ctx, struct cf_limiter *limiter, int n,
                             struct cf_err *err)
{
    struct cf_reservation reservation;
    int64_t left_ns = cf_ctx_remaining_ns(ctx);
    int64_t delay_ns;
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    if (left_ns > 0 && left_ns != CF_NEVER) {
        left_ns--; /* At the deadline is too late. */
    }
    switch (reserve(limiter, n, left_ns, &reservation, &delay_ns)) {
    case GRANTED:
        break;
    case TOO_LATE:
        (void)cf_err_set(err, CF_EDEADLINE, "waiting for tokens (%d) would exceed the deadline", n);
        return cf_err_retry_after(err, CF_EDEADLINE, delay_ns);
    case TOO_MANY:
        return cf_err_set(err, CF_EINVAL, "tokens (%d) exceed the burst", n);
    }
    if (delay_ns == 0) {
        return CF_OK;
    }
    code = cf_sleep_until(ctx, reservation.at_ns, err);
    if (code != CF_OK) {
        give_back(&reservation, false); /* The caller has not acted, however late it is. */
    }
    return code;
}

void cf_limiter_set_limit(struct cf_limiter *limiter, double per_second)
{
    int64_t now;

    (void)pthread_mutex_lock(&limiter->mu);
    now = now_ns();
    set_tokens(limiter, tokens_at(limiter, now), now);
    limiter->per_second = tame(per_second);
    (void)pthread_mutex_unlock(&limiter->mu);
}

void cf_limiter_set_burst(struct cf_limiter *limiter, int burst)
{
    int64_t now;

    (void)pthread_mutex_lock(&limiter->mu);
    now = now_ns();
    set_tokens(limiter, tokens_at(limiter, now), now);
    limiter->burst = burst > 0 ? burst : 0;
    (void)pthread_mutex_unlock(&limiter->mu);
}

/* Queries */

int64_t cf_reservation_delay_ns(const struct cf_reservation *reservation)
{
    int64_t now = now_ns();

    if (reservation->at_ns == CF_NEVER) {
        return CF_NEVER;
    }
    return reservation->at_ns > now ? reservation->at_ns - now : 0;
}

double cf_limiter_tokens(struct cf_limiter *limiter)
{
    double tokens;

    (void)pthread_mutex_lock(&limiter->mu);
    tokens = tokens_at(limiter, now_ns());
    (void)pthread_mutex_unlock(&limiter->mu);
    return tokens;
}

double cf_limiter_limit(struct cf_limiter *limiter)
{
    double per_second;

    (void)pthread_mutex_lock(&limiter->mu);
    per_second = limiter->per_second;
    (void)pthread_mutex_unlock(&limiter->mu);
    return per_second;
}

int cf_limiter_burst(struct cf_limiter *limiter)
{
    int burst;

    (void)pthread_mutex_lock(&limiter->mu);
    burst = limiter->burst;
    (void)pthread_mutex_unlock(&limiter->mu);
    return burst;
}

double cf_limiter_every(int64_t period_ns)
{
    return period_ns > 0 ? 1e9 / (double)period_ns : CF_LIMITER_INFINITE;
}
