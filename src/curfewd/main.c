/* SPDX-License-Identifier: MIT */
/* curfewd: reads its configuration, starts loops, database and listeners, and waits for a signal.
 *
 * The main thread does nothing else: signals are blocked in every thread and taken here by
 * sigwait(), so that no handler ever runs. The first SIGTERM or SIGINT lets requests end within the
 * grace; a second one ends the grace, and half a second later the process. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <curfew/client.h>
#include <curfew/clock.h>
#include <curfew/http.h>
#include <curfew/loop.h>
#include <curfew/pg.h>
#include <curfew/pg_listen.h>
#include <curfew/sem.h>

#include "curfewd/app.h"
#include "curfewd/cache/changes.h"
#include "curfewd/cache/dashboards.h"
#include "curfewd/config.h"
#include "curfewd/cpus.h"
#include "curfewd/members.h"
#include "curfewd/observe/events.h"
#include "curfewd/observe/log.h"
#include "curfewd/openapi.h"
#include "curfewd/ready.h"
#include "curfewd/reserve.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"
#include "curfewd/thumbnails/thumbnails.h"
#include "curfewd/versions.h"

/* Constants and types */

#define ADMIN_CONNECTIONS_MAX 32
#define FEWEST_CONNECTIONS 8 /* However few descriptors there are. */

/* Descriptors of our own: a few, and those of a loop (epolls, listeners, wake-ups). */
#define DESCRIPTORS 16
#define DESCRIPTORS_PER_LOOP 10

/* Between attempts to connect: for so long after the server is back a request may still be refused.
 * Each attempt costs a server that runs a process, and one that does not nothing. */
#define BACKOFF_MAX_NS (CF_SECOND / 2)

#define HURRY_NS (CF_SECOND / 2)     /* Between the second signal and the end. */
#define LOG_FLUSH_NS (CF_SECOND / 2) /* For a reader of the log that is slow at the end. */
#define READY_NS (2 * CF_SECOND)     /* For the answer to --ready. */

enum exit_status {
    EXIT_CLEAN = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_CONFIG = 78,
};

struct service {
    struct config config;
    struct app app;
    struct cf_loop *loops[CONFIG_LOOPS_MAX];
    size_t n_loops;
    struct cf_pg_listener *listener; /* NULL: none is wanted. */
    struct cf_http_server *admin;
    struct cf_http_route admin_routes[ROUTES_MAX]; /* Borrowed by the servers, as the next are. */
    struct cf_http_route api_routes[ROUTES_MAX];

    pthread_mutex_t mu; /* Guards the pointer below, for the thread of the second signal. */
    struct cf_http_server *api;
};

/* Internal helpers: starting */

/* A standard descriptor that we were started without would be the next that is opened, and the log
 * would go to an epoll, or to whoever is at the other end of a connection. */
static void open_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR); /* The lowest that is free; is left open if it is one. */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* A core holds the database's password and what clients have sent. A core that is piped to a
 * program knows no limit of size, but asks whether the process is dumpable; what cannot be
 * forbidden is as the system has it. */
static void forbid_core_dumps(void)
{
    const struct rlimit none = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
}

static size_t choose_loops(const struct config *config)
{
    int64_t n = config->loops;

    if (n == 0) {
        n = cpus_usable(CPUS_CGROUP);
        n = n < config->pool ? n : config->pool;
        n = n < CONFIG_LOOPS_MAX ? n : CONFIG_LOOPS_MAX;
    }
    return (size_t)n;
}

/* How many descriptors we need besides those of the API's clients. */
static int64_t own_descriptors(const struct config *config)
{
    int64_t fetches = config->fetch_allow[0] != '\0' ? FETCH_CONNECTIONS_MAX : 0;
    int64_t per_loop = DESCRIPTORS_PER_LOOP + CF_HTTP_SPARE_CONNECTIONS + fetches;

    return DESCRIPTORS + per_loop * (int64_t)choose_loops(config) + 2 * config->pool +
           ADMIN_CONNECTIONS_MAX + CF_HTTP_SPARE_CONNECTIONS;
}

/* Raise the limit of open files to what we may have, and take no more clients than it has room for:
 * at the limit the database and the admin listener would have none either, and libmicrohttpd would
 * ask for one without a pause. Then have the kernel make its table as large as it can get now.
 * Later, with threads, each doubling of the table waits for the other processors (RCU): 10 to 20 ms
 * in which nothing is accepted, just when a storm begins. */
static void prepare_descriptors(struct config *config)
{
    int64_t ours = own_descriptors(config);
    int64_t want = ours + config->connections;
    struct rlimit limit;
    int fd;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* Refused: what there is has to do. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)want >= limit.rlim_cur) {
        want = (int64_t)limit.rlim_cur - 1;
        config->connections = want > ours + FEWEST_CONNECTIONS ? want - ours : FEWEST_CONNECTIONS;
        if (config->in_flight >= config->connections) { /* Or it would never be reached. */
            config->in_flight = config->connections - 1;
        }
    }
    fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, (int)want);
    if (fd >= 0) {
        (void)close(fd);
    }
}

static enum cf_code start_loops(struct service *service, struct cf_err *err)
{
    size_t n = choose_loops(&service->config);
    int64_t descriptors = own_descriptors(&service->config) + service->config.connections;
    enum cf_code code = cf_loop_report_overflow(err);

    if (code == CF_OK) {
        code = reserve_for_libuv(n, (size_t)descriptors, err);
    }
    while (code == CF_OK && service->n_loops < n) {
        code = cf_loop_new(NULL, &service->loops[service->n_loops], err);
        service->n_loops += code == CF_OK;
    }
    return code;
}

/* The server's net lies above the longest deadline. */
static enum cf_code start_database(struct service *service, struct cf_err *err)
{
    const struct config *config = &service->config;
    struct cf_pg_options options = {
        .url = config->database_url,
        .application_name = "curfewd",
        .pool_max = (size_t)config->pool,
        .pool_min = (size_t)config->pool, /* A storm is not the time to make them. */
        .waiters_max = (size_t)(config->waiters > 0 ? config->waiters : config->in_flight),
        .cancel = (enum cf_pg_cancel_way)config->cancel,
        .statement_timeout_ns = config->max_timeout_ns + STORE_NET_NS,
        .backoff_max_ns = BACKOFF_MAX_NS,
        .on_event = events_log_pg,
    };

    return cf_pg_new(&options, service->loops, service->n_loops, &service->app.pg, err);
}

/* A load has the longest deadline that a request can have: whoever waits for it may. */
static enum cf_code start_cache(struct service *service, struct cf_err *err)
{
    const struct config *config = &service->config;
    struct app *app = &service->app;
    struct dashboards_options options = {
        .fetch = store_section,
        .arg = app->pg,
        .ttl_ns = config->cache_ttl_ns,
        .stale_ns = config->cache_stale_ns,
        .stale_if_error_ns = config->cache_stale_if_error_ns,
        .negative_ttl_ns = config->cache_negative_ttl_ns,
        .load_timeout_ns = config->max_timeout_ns,
        .entries_max = (size_t)config->cache_entries,
        .bytes_max = (size_t)config->cache_size,
    };

    return dashboards_new(&options, &app->dashboards, err);
}

/* Whatever anybody changes in the database drops the dashboards that show it, in each instance. */
static enum cf_code start_listening(struct service *service, struct cf_err *err)
{
    static const char *const channels[] = {CHANGES_CHANNEL};
    struct app *app = &service->app;
    struct cf_pg_listen_options options = {
        .channels = channels,
        .n_channels = 1,
        .on_notify = changes_take,
        .on_listen = changes_missed,
        .arg = app->dashboards,
    };

    if (!service->config.notify || !dashboards_is_on(app->dashboards)) {
        return CF_OK;
    }
    return cf_pg_listener_new(app->pg, &options, &service->listener, err);
}

static enum cf_code start_thumbnails(struct service *service, struct cf_err *err)
{
    const struct config *config = &service->config;
    struct thumbnails_options options = {
        .pg = service->app.pg,
        .threads_max =
            (size_t)(config->image_threads > 0 ? config->image_threads : cpus_usable(CPUS_CGROUP)),
        .memory_max = (size_t)config->image_memory,
        .pixels_max = (size_t)config->image_pixels,
        .make_timeout_ns = config->max_timeout_ns,
    };

    return thumbnails_new(&options, &service->app.thumbnails, err);
}

static enum cf_code start_fetcher(struct service *service, struct cf_err *err)
{
    /* Whoever is fetched from is a third party: it is told neither deadline nor trace. */
    struct cf_client_options options = {
        .allow = service->config.fetch_allow,
        .connections_max = FETCH_CONNECTIONS_MAX,
        .host_max = FETCH_CONNECTIONS_MAX,
        .body_size_max = FETCH_ANSWER_SIZE_MAX,
        .redirects_max = FETCH_REDIRECTS_MAX,
        .timeout_max_ns = FETCH_URL_TIMEOUT_NS,
    };

    if (options.allow[0] == '\0') {
        return CF_OK;
    }
    return cf_client_new(&options, service->loops, service->n_loops, &service->app.fetcher, err);
}

/* Where to listen: at the address of a setting, with these routes, on the first loops. */
struct listener {
    const char *const *address; /* In the configuration, which knows its name. */
    const struct cf_http_route *routes;
    size_t n_routes;
    size_t n_loops;
    int64_t connections_max;
    int64_t connections_per_address_max;
    const char *hosts; /* NULL: any. */
};

/* Whether the address, where it could not be listened on, has the port of the admin listener. If
 * they are of two interfaces somebody else may have it as well, but not likely. */
static bool is_port_of_admin(const struct service *service, const char *address)
{
    return service->admin != NULL &&
           strtol(strrchr(address, ':') + 1, NULL, 10) == cf_http_server_port(service->admin);
}

static enum cf_code start_listener(struct service *service, const struct listener *listener,
                                   struct cf_http_server **out, struct cf_err *err)
{
    const struct config *config = &service->config;
    struct cf_http_options options = {
        .listen = *listener->address,
        .routes = listener->routes,
        .n_routes = listener->n_routes,
        .app = &service->app,
        .timeout_default_ns = config->default_timeout_ns,
        .timeout_max_ns = config->max_timeout_ns,
        .route_caps_win = true, /* The export's. */
        .idle_timeout_ns = config->idle_timeout_ns,
        .head_timeout_ns = config->head_timeout_ns,
        .body_timeout_ns = config->body_timeout_ns,
        .send_timeout_ns = config->send_timeout_ns,
        .connections_max = (size_t)listener->connections_max,
        .in_flight_max = (size_t)config->in_flight,
        .head_size_max = (size_t)config->head_size,
        .target_size_max = (size_t)config->target_size,
        .fields_max = (size_t)config->fields,
        .body_size_max = (size_t)config->body_size,
        .bodies_size_max = (size_t)config->bodies_size,
        .connections_per_address_max = (size_t)listener->connections_per_address_max,
        .trusted_proxies = config->trusted_proxies,
        .hosts = listener->hosts,
        .half_close_allowed = config->half_close,
        .on_done = events_log_request,
    };
    char name[CONFIG_NAME_SIZE];
    enum cf_code code = cf_http_server_new(&options, service->loops, listener->n_loops, out, err);

    if (code == CF_OK) {
        return CF_OK;
    }
    if (code == CF_ECONFLICT && is_port_of_admin(service, *listener->address)) {
        (void)cf_err_set(err, code, "cannot listen on %s: --admin has that port",
                         *listener->address);
    }
    return cf_err_wrap(err, code, "%s", config_name(config, listener->address, name));
}

/* The admin listener needs one loop only, and is there first: it can say that nothing else is. */
static enum cf_code start(struct service *service, struct cf_err *err)
{
    const struct config *config = &service->config;
    struct routes_options routes = {.demo = config->demo,
                                    .export_timeout_ns = config->export_timeout_ns,
                                    .image_size_max = (size_t)config->image_size};
    struct listener admin = {.address = &config->admin,
                             .routes = service->admin_routes,
                             .n_routes = routes_admin(&routes, service->admin_routes),
                             .n_loops = 1,
                             .connections_max = ADMIN_CONNECTIONS_MAX,
                             .hosts = config->admin_hosts};
    struct listener api = {.address = &config->listen,
                           .routes = service->api_routes,
                           .n_routes = routes_api(&routes, service->api_routes),
                           .connections_max = config->connections,
                           .connections_per_address_max = config->connections_per_address};
    enum cf_code code = start_loops(service, err);

    service->app.idempotency_ttl_ns = config->idempotency_ttl_ns;
    api.n_loops = service->n_loops;
    if (code == CF_OK) {
        code = start_database(service, err);
    }
    if (code == CF_OK) {
        code = start_cache(service, err);
    }
    if (code == CF_OK) {
        code = start_listening(service, err);
    }
    if (code == CF_OK) {
        code = start_thumbnails(service, err);
    }
    if (code == CF_OK) {
        code = start_fetcher(service, err);
    }
    if (code == CF_OK) {
        code = cf_sem_new(config->exports, &service->app.exports, err);
    }
    if (code == CF_OK) {
        code = openapi_new(&service->app.openapi, err);
    }
    if (code == CF_OK) {
        code = start_listener(service, &admin, &service->admin, err);
    }
    if (code == CF_OK) {
        code = start_listener(service, &api, &service->api, err);
    }
    return code;
}

static void log_started(const struct service *service)
{
    struct cf_json json;

    log_begin(&json, LOG_INFO, "listening");
    member_str(&json, "api", service->config.listen);
    member_u64(&json, "api_port", cf_http_server_port(service->api));
    member_str(&json, "admin", service->config.admin);
    member_u64(&json, "admin_port", cf_http_server_port(service->admin));
    member_u64(&json, "loops", service->n_loops);
    member_i64(&json, "pool", service->config.pool);
    member_i64(&json, "connections", service->config.connections);
    member_str(&json, "version", CF_VERSION);
    log_end(&json, LOG_INFO);
}

/* They are not refused as those of a file are, for anybody may put variables there. */
static void log_unknown_settings(void)
{
    char names[CONFIG_UNKNOWN_SIZE];
    struct cf_json json;

    if (config_unknown(names)) {
        log_begin(&json, LOG_WARN, "unknown settings in the environment");
        member_str(&json, "variables", names);
        log_end(&json, LOG_WARN);
    }
}

/* Internal helpers: stopping */

static void block_signals(sigset_t *out_stop)
{
    (void)signal(SIGPIPE, SIG_IGN); /* A client that has gone is an error of write(). */
    (void)sigemptyset(out_stop);
    (void)sigaddset(out_stop, SIGTERM);
    (void)sigaddset(out_stop, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, out_stop, NULL);
}

/* Take the second signal while the main thread stops the servers. */
static void *hurry(void *arg)
{
    struct service *service = arg;
    struct timespec last = {.tv_sec = HURRY_NS / CF_SECOND, .tv_nsec = HURRY_NS % CF_SECOND};
    sigset_t stop;
    int number;

    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigaddset(&stop, SIGINT);
    if (sigwait(&stop, &number) == 0) {
        log_line(LOG_WARN, "second signal: stopping at once", NULL);
        (void)pthread_mutex_lock(&service->mu);
        if (service->api != NULL) {
            cf_http_server_hurry(service->api);
        }
        (void)pthread_mutex_unlock(&service->mu);
        (void)nanosleep(&last, NULL);
        _exit(EXIT_FAILED);
    }
    return NULL;
}

static void wait_for_signal(const sigset_t *stop)
{
    struct cf_json json;
    int number = 0;

    while (sigwait(stop, &number) != 0) {
    }
    log_begin(&json, LOG_INFO, "stopping");
    member_str(&json, "signal", sigabbrev_np(number));
    log_end(&json, LOG_INFO);
}

static void stop_api(struct service *service)
{
    struct cf_http_server *api = service->api;
    pthread_t thread;

    if (api == NULL) {
        return;
    }
    if (pthread_create(&thread, NULL, hurry, service) == 0) {
        (void)pthread_detach(thread); /* Ends with the process. */
    }
    cf_http_server_stop(api, service->config.grace_ns);
    (void)pthread_mutex_lock(&service->mu);
    service->api = NULL;
    (void)pthread_mutex_unlock(&service->mu);
    cf_http_server_free(api);
}

/* Free what was started, last first. Each part is NULL if it was not. */
static void stop(struct service *service)
{
    atomic_store(&service->app.draining, true);
    stop_api(service);
    if (service->admin != NULL) {
        cf_http_server_stop(service->admin, 0);
        cf_http_server_free(service->admin);
    }
    cf_pg_listener_free(service->listener);
    dashboards_free(service->app.dashboards);
    thumbnails_free(service->app.thumbnails);
    cf_client_free(service->app.fetcher);
    cf_pg_free(service->app.pg);
    cf_sem_free(service->app.exports);
    openapi_free(service->app.openapi);
    while (service->n_loops > 0) {
        cf_loop_free(service->loops[--service->n_loops]);
    }
}

/* Internal helpers: the command line */

static void print_versions(void)
{
    struct version list[VERSIONS_MAX];
    size_t count = versions(list);

    for (size_t i = 0; i < count; i++) {
        (void)printf("%s%s %s", i == 0 ? "" : i == 1 ? " (" : ", ", list[i].name, list[i].version);
    }
    (void)printf(")\n");
}

/* Says what is wrong where a person looks; returns the exit status. */
static int complain(enum exit_status status, const struct cf_err *err)
{
    (void)fprintf(stderr, "curfewd: %s\n", err->msg);
    return (int)status;
}

/* What was asked for, such as --help, has to arrive. Returns the exit status. */
static int flush_output(void)
{
    struct cf_err err;

    if (fflush(stdout) == 0 && ferror(stdout) == 0) {
        return EXIT_CLEAN;
    }
    (void)cf_err_set_sys(&err, CF_EIO, errno, "cannot write to standard output");
    return complain(EXIT_FAILED, &err);
}

static int ask_ready(const struct config *config)
{
    char name[CONFIG_NAME_SIZE];
    struct cf_err err;
    enum cf_code code = ready_ask(config->admin, READY_NS, &err);

    if (code == CF_OK) {
        return EXIT_CLEAN;
    }
    if (code == CF_EINVAL) {
        code = cf_err_wrap(&err, code, "%s", config_name(config, &config->admin, name));
    }
    return complain(code == CF_EINVAL ? EXIT_CONFIG : EXIT_FAILED, &err);
}

static int serve(struct service *service)
{
    struct cf_err err;
    sigset_t signals;

    if (!service->config.core_dumps) {
        forbid_core_dumps();
    }
    block_signals(&signals);
    prepare_descriptors(&service->config);
    if (log_start(STDOUT_FILENO, &err) != CF_OK) {
        return complain(EXIT_FAILED, &err);
    }
    log_unknown_settings();
    if (start(service, &err) != CF_OK) {
        bool configuration = cf_err_is(&err, CF_EINVAL);

        stop(service);
        log_stop(LOG_FLUSH_NS);
        return complain(configuration ? EXIT_CONFIG : EXIT_FAILED, &err);
    }
    log_started(service);
    wait_for_signal(&signals);
    stop(service);
    log_line(LOG_INFO, "stopped", NULL);
    log_stop(LOG_FLUSH_NS);
    return EXIT_CLEAN;
}

int main(int argc, char **argv)
{
    static struct service service = {.mu = PTHREAD_MUTEX_INITIALIZER};
    struct cf_err err;
    int status = EXIT_CLEAN;

    open_standard_descriptors();
    switch (config_load(argc, argv, &service.config, &err)) {
    case CONFIG_OK:
        status = serve(&service);
        break;
    case CONFIG_DUMP:
        config_dump(&service.config, stdout);
        status = flush_output();
        break;
    case CONFIG_READY:
        status = ask_ready(&service.config);
        break;
    case CONFIG_HELP:
        config_print_help(stdout);
        status = flush_output();
        break;
    case CONFIG_VERSION:
        print_versions();
        status = flush_output();
        break;
    case CONFIG_USAGE:
        status = complain(EXIT_USAGE, &err);
        break;
    case CONFIG_BAD:
        status = complain(cf_err_is(&err, CF_EINVAL) ? EXIT_CONFIG : EXIT_FAILED, &err);
        break;
    }
    _exit(status); /* Nobody joins the threads of libuv's pool, nor of an abandoned PQcancel. */
}
