/* SPDX-License-Identifier: MIT */
/* The control connection: one session that cancels others, with SELECT pg_cancel_backend().
 *
 * A tenth of PQcancel's time, because the server need not fork, and encrypted like every session.
 * When the answer is there the signal has been sent, and a signal that is pending is delivered
 * before the backend reads its next statement, which discards it: that is the first fence.
 *
 * It lives on the database's first loop; other loops send a message. A request that finds it idle
 * goes out at once, before whoever asks goes on; those that come until it is answered gather, and
 * go out in one statement then. A pid means something on one server only, so a request names the
 * server too, as its own session saw it (behind a balancer, two connections to one address may end
 * on two servers).
 *
 * A request is shared by who asks and by the control, because either may be the first to let go:
 * who asks when its bound has passed, the control when it has answered. */
#include "curfew/pg/pg_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>

#include "curfew/core/err_private.h"

/* Constants and types */

#define BATCH_MAX 64

/* After an attempt to connect failed, requests are refused at once for so long. */
#define RETRY_NS (CF_SECOND / 4)

/* How much longer a batch waits for its answer than who asked: he gives up first, and says so. */
#define BATCH_SPARE_NS (10 * CF_MS)

/* The same after it was found to lead to another server: behind a balancer the next may, too. */
#define ELSEWHERE_RETRY_NS (5 * CF_SECOND)

/* A set in the list of columns takes the server two thirds of what it takes in a FROM. */
static const struct cf_pg_stmt cancel_backends = {
    .name = "cf_cancel_backends",
    .sql = "SELECT pg_cancel_backend(unnest(string_to_array($1, ','))::int4)",
};

struct cf__pg_request {
    struct cf__message message; /* To the control's loop. */
    struct cf__pg_control *control;
    struct cf__list node; /* In the pending ones. */
    int backend_pid;
    char identity[CF__PG_IDENTITY_SIZE];
    atomic_uint refs;

    pthread_mutex_t mu;    /* Guards everything below. */
    struct cf__wait *wait; /* Of who asks; NULL while it does not wait. */
    bool abandoned;        /* Who asks has left. */
    bool answered;
    struct cf_err err; /* The answer; CF_OK: the backend was signalled. */
};

struct cf__pg_control {
    struct cf_pg *pg; /* Constant after new, as are these. */
    struct cf_loop *loop;
    struct cf_ctx *ctx;

    atomic_bool want_sent; /* A message `want` is under way. */
    struct cf__message want;

    struct cf__pg_conn *conn; /* Loop thread only, as is all below. NULL: not connected. */
    struct cf__list pending;  /* struct cf__pg_request */
    struct cf__pg_request *batch[BATCH_MAX]; /* Sent and not answered. */
    size_t n_batch;
    struct cf__wait *sleeper; /* The fiber, when it has nothing to do. */
    struct cf__wait *end;     /* Who waits for the fiber's end. */
    int64_t retry_at_ns;
    unsigned skip; /* Of the list of hosts: how often in a row it failed or led elsewhere. */
    bool wanted;
    bool ended; /* The fiber. */
};

/* Internal helpers: requests */

static void request_unref(struct cf__pg_request *request)
{
    if (atomic_fetch_sub(&request->refs, 1) == 1) {
        (void)pthread_mutex_destroy(&request->mu);
        free(request);
    }
}

/* Answer a request, and let it go. */
static void answer(struct cf__pg_request *request, const struct cf_err *err)
{
    (void)pthread_mutex_lock(&request->mu);
    if (err != NULL) {
        request->err = *err;
    }
    request->answered = true;
    if (request->wait != NULL) {
        (void)cf__wait_end(request->wait, CF__WAIT_READY); /* False: its bound was first. */
    }
    (void)pthread_mutex_unlock(&request->mu);
    request_unref(request);
}

static void answer_batch(struct cf__pg_control *control, const struct cf_err *err)
{
    for (size_t i = 0; i < control->n_batch; i++) {
        answer(control->batch[i], err);
    }
    control->n_batch = 0;
}

static void wake(struct cf__pg_control *control)
{
    struct cf__wait *sleeper = control->sleeper;

    if (sleeper != NULL) {
        control->sleeper = NULL;
        (void)cf__wait_end(sleeper, CF__WAIT_READY); /* False: it is ending. */
    }
}

static void want(struct cf__pg_control *control)
{
    control->wanted = true;
    wake(control);
}

static void on_want(struct cf__message *message)
{
    struct cf__pg_control *control = CF__CONTAINER(message, struct cf__pg_control, want);

    atomic_store(&control->want_sent, false);
    want(control);
}

/* Internal helpers: the connection */

/* Close it if the server has ended the session: the next request, or the pool, wants a new one. */
static void drop_dead(struct cf__pg_control *control)
{
    if (control->conn != NULL && !cf__pg_conn_alive(control->conn)) {
        cf__pg_conn_close(control->conn);
        control->conn = NULL;
    }
}

static void on_idle_input(void *arg)
{
    drop_dead(arg);
}

/* The connection leads to another server than the pool's does now, or to a pooler: perhaps the next
 * one will not. */
static void give_up_server(struct cf__pg_control *control)
{
    cf__pg_conn_close(control->conn);
    control->conn = NULL;
    control->skip++;
    control->retry_at_ns = cf_now_ns() + ELSEWHERE_RETRY_NS;
}

/* As a pool does before it lends, look at the socket: the loop may not have, since the end came. */
static enum cf_code ensure_connected(struct cf__pg_control *control, struct cf_err *err)
{
    struct cf_ctx *ctx;
    enum cf_code code;

    drop_dead(control);
    if (control->conn != NULL) {
        return CF_OK;
    }
    if (cf_now_ns() < control->retry_at_ns) {
        return cf_err_set(err, CF_EUNAVAIL, "there is no control connection");
    }
    code = cf_ctx_with_timeout(control->ctx, control->pg->options.connect_timeout_ns, &ctx, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__pg_conn_open(ctx, control->pg, control->skip, &control->pg->pools[0].next_step_ns,
                            &control->conn, err);
    cf_ctx_free(ctx);
    if (code != CF_OK) {
        control->skip++;
        control->retry_at_ns = cf_now_ns() + RETRY_NS;
        return cf_err_wrap(err, code, "control connection");
    }
    if (!control->conn->is_direct) {
        /* What it is asked would be done by whichever server the pooler chooses then. */
        give_up_server(control);
        return cf_err_set(err, CF_EINVAL, "control connection: a pooler hides its backend");
    }
    control->conn->on_idle_input = on_idle_input;
    control->conn->arg = control;
    return CF_OK;
}

/* Internal helpers: one statement */

/* Nobody waits for the answer any more. To cancel then would be wrong: the connection it was for is
 * closed, and its backend's pid may have become another's. */
static bool is_abandoned(struct cf__pg_request *request)
{
    bool abandoned;

    (void)pthread_mutex_lock(&request->mu);
    abandoned = request->abandoned;
    (void)pthread_mutex_unlock(&request->mu);
    return abandoned;
}

/* Take what is pending for this server; what is for another is answered so. */
static void take_batch(struct cf__pg_control *control)
{
    bool elsewhere = false;
    struct cf__list *node;

    CF_ASSERT(control->conn != NULL && control->n_batch == 0);
    while (control->n_batch < BATCH_MAX && (node = cf__list_pop(&control->pending)) != NULL) {
        struct cf__pg_request *request = CF__CONTAINER(node, struct cf__pg_request, node);

        if (is_abandoned(request)) {
            request_unref(request);
        } else if (strcmp(request->identity, control->conn->identity) == 0) {
            control->batch[control->n_batch++] = request;
        } else {
            struct cf_err err;

            elsewhere = true;
            (void)cf_err_set(&err, CF_EINVAL, "the control connection leads to another server");
            answer(request, &err);
        }
    }
    if (control->n_batch > 0) {
        control->skip = 0;
    } else if (elsewhere) {
        give_up_server(control);
    }
}

/* CF_EIO: it was sent and not answered, so the server may yet do it. */
static void fail_batch(struct cf__pg_control *control, struct cf_err *err)
{
    enum cf_code code;

    CF_ASSERT(control->conn != NULL); /* It is closed here and nowhere else while a batch is out. */
    code = control->conn->section.pending ? cf_err_recode(err, CF_EIO) : err->code;
    (void)cf_err_wrap(err, code, "control connection");
    cf__pg_conn_close(control->conn);
    control->conn = NULL;
    answer_batch(control, err);
}

/* Send what is pending, on a connection that is there and idle. Never blocks. */
static void send_pending(struct cf__pg_control *control)
{
    char pids[BATCH_MAX * 12] = "";
    struct cf_pg_param params[] = {cf_pg_str(pids)};
    size_t size = 0;
    struct cf_err err;

    take_batch(control);
    for (size_t i = 0; i < control->n_batch; i++) {
        size += (size_t)snprintf(pids + size, sizeof(pids) - size, "%s%d", i > 0 ? "," : "",
                                 control->batch[i]->backend_pid);
    }
    if (control->n_batch > 0 &&
        cf__pg_conn_send(control->conn, &cancel_backends, params, 1, &err) != CF_OK) {
        fail_batch(control, &err);
    }
}

/* Wait for the answer to what was sent. A backend that is not there any more needs no signal: its
 * answer, false, is as good as true. */
static void finish_batch(struct cf__pg_control *control)
{
    struct cf_ctx *ctx = NULL;
    PGresult *result = NULL;
    struct cf_err err;
    enum cf_code code;

    code = cf_ctx_with_timeout(control->ctx,
                               control->pg->options.cancel_timeout_ns + BATCH_SPARE_NS, &ctx, &err);
    if (code == CF_OK) {
        code = cf__pg_conn_wait(ctx, control->conn, &err);
    }
    if (code == CF_OK) {
        code = cf__pg_conn_result(control->conn, &result, &err);
    }
    PQclear(result);
    cf_ctx_free(ctx);
    if (code == CF_OK) {
        answer_batch(control, NULL);
    } else {
        fail_batch(control, &err);
    }
}

/* A request has come, on the control's loop. It need not wait for the fiber, whose turn comes after
 * that of the fibers that are ready now, if that has nothing else to do. */
static void on_request(struct cf__message *message)
{
    struct cf__pg_request *request = CF__CONTAINER(message, struct cf__pg_request, message);
    struct cf__pg_control *control = request->control;
    struct cf_err err;

    if (control->ended) {
        (void)cf_err_set(&err, CF_EUNAVAIL, "the database is closing");
        answer(request, &err);
        return;
    }
    cf__list_push(&control->pending, &request->node);
    if (control->sleeper != NULL) {
        drop_dead(control);
        if (control->conn != NULL) {
            send_pending(control);
        }
        wake(control);
    }
}

/* Internal helpers: the fiber */

static void refuse_pending(struct cf__pg_control *control, const struct cf_err *err)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&control->pending)) != NULL) {
        answer(CF__CONTAINER(node, struct cf__pg_request, node), err);
    }
}

static void serve_pending(struct cf__pg_control *control)
{
    struct cf_err err;

    if (ensure_connected(control, &err) == CF_OK) {
        send_pending(control);
    } else {
        refuse_pending(control, &err);
    }
}

static void run(void *arg)
{
    struct cf__pg_control *control = arg;
    struct cf_err err;

    for (;;) {
        struct cf__wait sleeper;

        if (control->n_batch > 0) {
            finish_batch(control);
            continue;
        }
        if (!cf__list_empty(&control->pending)) {
            serve_pending(control);
            continue;
        }
        if (control->wanted) {
            control->wanted = false;
            (void)ensure_connected(control, NULL); /* If not now, then when it is needed. */
            continue;
        }
        cf__wait_init(&sleeper);
        control->sleeper = &sleeper;
        if (cf__wait_park(control->ctx, &sleeper) != CF__WAIT_READY) {
            control->sleeper = NULL;
            break;
        }
    }
    if (control->n_batch > 0) {
        finish_batch(control); /* Sent when it was woken to end. */
    }
    control->ended = true;
    (void)cf_err_set(&err, CF_EUNAVAIL, "the database is closing");
    refuse_pending(control, &err);
    cf__pg_conn_close(control->conn);
    control->conn = NULL;
    if (control->end != NULL) {
        (void)cf__wait_end(control->end, CF__WAIT_READY); /* Nobody else ends it. */
    }
}

/* Life cycle */

enum cf_code cf__pg_control_new(struct cf_pg *pg, struct cf_loop *loop, struct cf__pg_control **out,
                                struct cf_err *err)
{
    struct cf__pg_control *control = calloc(1, sizeof(*control));
    enum cf_code code;

    if (control == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a control connection");
    }
    control->pg = pg;
    control->loop = loop;
    control->want.run = on_want;
    cf__list_init(&control->pending);
    code = cf_ctx_with_cancel(cf_ctx_background(), &control->ctx, err);
    if (code == CF_OK) {
        code = cf_loop_spawn(loop, run, control, err);
    }
    if (code != CF_OK) {
        cf_ctx_free(control->ctx);
        free(control);
        return code;
    }
    *out = control;
    return CF_OK;
}

void cf__pg_control_stop(struct cf__pg_control *control)
{
    struct cf__wait end;

    cf_ctx_cancel_cause(control->ctx, CF_REASON_SHUTDOWN, NULL);
    if (!control->ended) {
        cf__wait_init(&end);
        control->end = &end;
        (void)cf__wait_park(NULL, &end); /* It gives up what it waits for. */
    }
    /* Other loops' messages came before the one that led here, and this loop sends none. */
    CF_ASSERT(!atomic_load(&control->want_sent));
}

void cf__pg_control_free(struct cf__pg_control *control)
{
    if (control != NULL) {
        cf_ctx_free(control->ctx);
        free(control);
    }
}

/* Operations */

/* A message from its own loop could come when it is no more: see cf__pg_control_stop(). */
void cf__pg_control_want(struct cf__pg_control *control)
{
    if (cf_loop_current() == control->loop) {
        want(control);
    } else if (!atomic_exchange(&control->want_sent, true)) {
        cf__loop_post(control->loop, &control->want);
    }
}

static struct cf__pg_request *request_new(struct cf__pg_control *control,
                                          const struct cf__pg_conn *conn)
{
    struct cf__pg_request *request = calloc(1, sizeof(*request));

    if (request != NULL) {
        request->message.run = on_request;
        request->control = control;
        request->backend_pid = conn->backend_pid;
        memcpy(request->identity, conn->identity, sizeof(request->identity));
        atomic_init(&request->refs, 2);
        (void)pthread_mutex_init(&request->mu, NULL);
    }
    return request;
}

enum cf_code cf__pg_control_ask(struct cf__pg_control *control, const struct cf__pg_conn *conn,
                                struct cf__pg_request **out, struct cf_err *err)
{
    struct cf__pg_request *request;

    if (!conn->is_direct) {
        return cf_err_set(err, CF_EINVAL, "a pooler hides the backend");
    }
    request = request_new(control, conn);
    if (request == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to cancel");
    }
    if (cf_loop_current() == control->loop) {
        on_request(&request->message);
    } else {
        cf__loop_post(control->loop, &request->message);
    }
    *out = request;
    return CF_OK;
}

enum cf_code cf__pg_control_answer(struct cf_ctx *ctx, struct cf__pg_request *request,
                                   struct cf_err *err)
{
    struct cf__wait wait;
    bool answered;
    enum cf_code code;

    cf__wait_init(&wait);
    (void)pthread_mutex_lock(&request->mu);
    answered = request->answered;
    request->wait = &wait;
    (void)pthread_mutex_unlock(&request->mu);
    answered = answered || cf__wait_park(ctx, &wait) == CF__WAIT_READY;

    (void)pthread_mutex_lock(&request->mu);
    request->wait = NULL;
    request->abandoned = true;
    code = request->err.code;
    if (answered && code != CF_OK) {
        (void)cf__err_give(err, &request->err);
    }
    (void)pthread_mutex_unlock(&request->mu);
    request_unref(request);
    return answered ? code : cf_ctx_check(ctx, err);
}

void cf__pg_control_forget(struct cf__pg_request *request)
{
    if (request == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&request->mu);
    request->abandoned = true;
    (void)pthread_mutex_unlock(&request->mu);
    request_unref(request);
}
