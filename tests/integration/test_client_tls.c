/* SPDX-License-Identifier: MIT */
/* The HTTP client over TLS: whom it trusts, and what that costs the loop.
 * The server is OpenSSL's. */
#include <curfew/client.h>

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

/* Where Debian's libcurl looks for the system's certificates. */
#define SYSTEM_DIRECTORY "/etc/ssl/certs"

/* Fixture */

static char directory[] = "/tmp/curfew-tls-XXXXXX"; /* The server's certificate, and another. */
static pid_t server;
static unsigned port;
static struct cf_loop *loop;
static struct cf_client *client;
static char url[64];
static char rules[64];

static void run(const char *command)
{
    char whole[1024];

    (void)snprintf(whole, sizeof(whole), "cd %s && { %s; } >/dev/null 2>&1", directory, command);
    ck_assert_msg(system(whole) == 0, "%s", command);
}

static int listen_nowhere(struct sockaddr_in *address)
{
    socklen_t size = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

static void run_server(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char text[16];

    (void)snprintf(text, sizeof(text), "%u", port);
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(null, STDOUT_FILENO);
    (void)dup2(null, STDERR_FILENO);
    if (chdir(directory) == 0) {
        (void)execlp("openssl", "openssl", "s_server", "-4", "-accept", text, "-key", "key.pem",
                     "-cert", "cert.pem", "-www", (char *)NULL);
    }
    _exit(127);
}

static void start_server(void)
{
    struct sockaddr_in address;

    (void)close(listen_nowhere(&address)); /* Finds a port that is free. */
    port = ntohs(address.sin_port);
    server = fork();
    if (server == 0) {
        run_server();
    }
    for (int64_t until_ns = cf_now_ns() + 5 * CF_SECOND;;) {
        int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0;

        (void)close(probe);
        if (up) {
            return;
        }
        ck_assert_int_lt(cf_now_ns(), until_ns);
        (void)usleep(2000);
    }
}

/* Have this process see a system that trusts the server. Without the right to (a container without
 * privileges) it sees the one that there is, which does not. */
static bool trust_by_system(void)
{
    run("mkdir certs && cp cert.pem certs/ca-certificates.crt && cp cert.pem certs && openssl "
        "rehash certs");
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    (void)strcat(strcpy(rules, directory), "/certs");
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(rules, SYSTEM_DIRECTORY, NULL, MS_BIND, NULL) == 0;
}

static void setup(void)
{
    static const char make[] = "openssl req -x509 -newkey rsa:2048 -nodes -keyout %skey.pem -out"
                               " %scert.pem -days 2 -subj /CN=%s"
                               " -addext subjectAltName=DNS:localhost";
    char command[256];

    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(command, sizeof(command), make, "", "", "localhost");
    run(command);
    (void)snprintf(command, sizeof(command), make, "other-", "other-", "other");
    run(command);
    start_server();
    client = NULL;
    loop = NULL;
}

static void teardown(void)
{
    char command[64];

    cf_client_free(client);
    cf_loop_free(loop);
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    (void)snprintf(command, sizeof(command), "rm -r %s", directory);
    ck_assert_int_eq(system(command), 0);
}

/* Helpers */

/* A file of `directory`, or the system's. */
static void use_client(const char *ca_file)
{
    struct cf_client_options options = {.allow = rules};
    struct cf_err err = {.msg = ""};
    char path[64];

    (void)snprintf(url, sizeof(url), "https://localhost:%u/", port);
    (void)snprintf(rules, sizeof(rules), "localhost:%u 127.0.0.0/8", port);
    (void)snprintf(path, sizeof(path), "%s/%s", directory, ca_file != NULL ? ca_file : "");
    options.ca_file = ca_file != NULL ? path : NULL;
    if (loop == NULL) {
        ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    }
    cf_client_free(client);
    ck_assert_msg(cf_client_new(&options, &loop, 1, &client, &err) == CF_OK, "%s", err.msg);
}

struct job {
    enum cf_code code;
    struct cf_err err;
    int64_t worked_ns; /* By the loop's thread. */
};

static int64_t work_ns(void)
{
    struct timespec ts;

    ck_assert_int_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 0);
    return ts.tv_sec * CF_SECOND + ts.tv_nsec;
}

static void run_job(void *arg)
{
    struct cf_client_request request = {.url = url};
    struct cf_client_reply *reply = NULL;
    struct job *job = arg;
    int64_t since_ns = work_ns();

    job->code = cf_client_do(cf_ctx_background(), client, &request, &reply, &job->err);
    job->worked_ns = work_ns() - since_ns;
    cf_client_reply_free(reply);
}

static struct job get(void)
{
    struct job job = {.err = {.msg = ""}};

    ck_assert_int_eq(cf_loop_call(loop, run_job, &job, NULL), CF_OK);
    return job;
}

static void expect_refused(void)
{
    struct job job = get();

    ck_assert_msg(job.code == CF_EUNAVAIL, "%s: %s", cf_code_name(job.code), job.err.msg);
    ck_assert_msg(strstr(job.err.msg, "certificate") != NULL, "%s", job.err.msg);
}

static void expect_trusted(void)
{
    struct job job = get();

    ck_assert_msg(job.code == CF_OK, "%s: %s", cf_code_name(job.code), job.err.msg);
}

/* cf_client_do */

START_TEST(do_trusts_whom_it_is_told_to_trust)
{
    use_client(NULL);
    expect_refused();
    use_client("cert.pem");
    expect_trusted();
}
END_TEST

START_TEST(do_that_is_told_whom_to_trust_trusts_nobody_else)
{
    if (trust_by_system()) {
        use_client(NULL);
        expect_trusted();
    }
    use_client("other-cert.pem");
    expect_refused();
}
END_TEST

/* The certificates of all authorities take some 30 ms to read. */
START_TEST(do_reads_the_certificates_once)
{
    int64_t least_ns = INT64_MAX;

    use_client(NULL);
    expect_refused();
    for (int i = 0; i < 4; i++) {
        struct job job = get();

        least_ns = job.worked_ns < least_ns ? job.worked_ns : least_ns;
    }
    ck_assert_msg(least_ns < 10 * CF_MS, "a connection takes %.1f ms of the loop",
                  (double)least_ns / 1e6);
}
END_TEST

Suite *suite_client_tls(void)
{
    Suite *suite = suite_create("client_tls");
    TCase *tc = tcase_create("do");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, do_trusts_whom_it_is_told_to_trust);
    tcase_add_test(tc, do_that_is_told_whom_to_trust_trusts_nobody_else);
    tcase_add_test(tc, do_reads_the_certificates_once);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return suite;
}
