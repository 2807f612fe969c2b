/* SPDX-License-Identifier: MIT */
/* The HTTP client over TLS: whom it trusts, and what that costs a loop. The server is OpenSSL's. */
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

#include "client.h"
#include "witness.h"

/* Where Debian's libcurl looks for the system's certificates. */
#define SYSTEM_DIRECTORY "/etc/ssl/certs"

/* Fixture */

#define LOOPS 2

static char directory[] = "/tmp/curfew-tls-XXXXXX"; /* Of certificates. */
static pid_t server;
static unsigned port;
static struct cf_loop *loops[LOOPS];
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
    for (int64_t since_ns = cf_now_ns();;) {
        int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0;

        (void)close(probe);
        if (up) {
            return;
        }
        ck_assert_int_lt(cf_now_ns() - since_ns, bound(CLIENT_WAIT_NS));
        (void)usleep(2000);
    }
}

/* Have this process see the certificates in `certs` as the system's. Without the right to (a
 * container without privileges) it sees those that there are, and none is the server's. */
static bool replace_the_systems(void)
{
    witness_leave();
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    (void)strcat(strcpy(rules, directory), "/certs");
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(rules, SYSTEM_DIRECTORY, NULL, MS_BIND, NULL) == 0;
}

/* The server's certificate, that of the authority which signed it, and another. */
static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    run("make='openssl req -x509 -newkey rsa:2048 -nodes -days 2'"
        " && $make -keyout ca-key.pem -out ca.pem -subj /CN=authority"
        " && $make -keyout other-key.pem -out other.pem -subj /CN=localhost"
        " && $make -keyout key.pem -out cert.pem -subj /CN=localhost -CA ca.pem -CAkey ca-key.pem"
        " -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE");
    start_server();
    client = NULL;
    memset(loops, 0, sizeof(loops));
}

static void teardown(void)
{
    char command[64];

    cf_client_free(client);
    for (int i = 0; i < LOOPS; i++) {
        cf_loop_free(loops[i]);
    }
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    (void)snprintf(command, sizeof(command), "rm -r %s", directory);
    ck_assert_int_eq(system(command), 0);
}

/* Helpers */

/* Trusts a file of `directory`, or the system's. */
static enum cf_code make_client(const char *ca_file, struct cf_err *err)
{
    struct cf_client_options options = {.allow = rules};
    char path[64];

    (void)snprintf(url, sizeof(url), "https://localhost:%u/", port);
    (void)snprintf(rules, sizeof(rules), "localhost:%u 127.0.0.0/8", port);
    (void)snprintf(path, sizeof(path), "%s/%s", directory, ca_file != NULL ? ca_file : "");
    options.ca_file = ca_file != NULL ? path : NULL;
    for (int i = 0; i < LOOPS && loops[i] == NULL; i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &loops[i], NULL), CF_OK);
    }
    return cf_client_new(&options, loops, LOOPS, &client, err);
}

static void use_client(const char *ca_file)
{
    struct cf_err err = {.msg = ""};

    cf_client_free(client);
    ck_assert_msg(make_client(ca_file, &err) == CF_OK, "%s", err.msg);
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

static struct job get_on(struct cf_loop *loop)
{
    struct job job = {.err = {.msg = ""}};

    ck_assert_int_eq(cf_loop_call(loop, run_job, &job, NULL), CF_OK);
    return job;
}

static void expect_refused(void)
{
    struct job job = get_on(loops[0]);

    ck_assert_msg(job.code == CF_EUNAVAIL, "%s: %s", cf_code_name(job.code), job.err.msg);
    ck_assert_msg(strstr(job.err.msg, "certificate") != NULL, "%s", job.err.msg);
}

static struct job expect_trusted(struct cf_loop *loop)
{
    struct job job = get_on(loop);

    ck_assert_msg(job.code == CF_OK, "%s: %s", cf_code_name(job.code), job.err.msg);
    return job;
}

/* cf_client_new */

START_TEST(new_with_a_file_of_no_certificates_is_invalid)
{
    static const struct {
        const char *make; /* A file named "file". */
        const char *why;
    } files[] = {{"rm -f file", "No such file or directory"},
                 {"mkdir file", "Is a directory"},
                 {"touch file", "no certificate"},
                 {"cp key.pem file", "no certificate"},
                 {"{ cat ca.pem; sed '3s/./!/' cert.pem; } >file", "base64"},
                 {"{ cat ca.pem; sed '3,6d' cert.pem; } >file", "certificate 2"}};
    struct cf_err err = {.msg = ""};
    enum cf_code code;

    run(files[_i].make);
    code = make_client("file", &err);
    ck_assert_msg(code == CF_EINVAL, "%s: %s", cf_code_name(code), err.msg);
    ck_assert_msg(strstr(err.msg, directory) != NULL, "%s", err.msg);
    ck_assert_msg(strstr(err.msg, files[_i].why) != NULL, "%s", err.msg);
    client = NULL;
}
END_TEST

/* cf_client_do */

START_TEST(do_trusts_whom_it_is_told_to_trust)
{
    use_client(NULL);
    expect_refused();
    use_client("other.pem");
    expect_refused();
    use_client("cert.pem"); /* Whose own authority it does not know. */
    (void)expect_trusted(loops[0]);
    use_client("ca.pem");
    (void)expect_trusted(loops[0]);
    run("openssl x509 -in other.pem -outform DER |"
        " LC_ALL=C sed 's/\\x86\\xf7\\x0d\\x01\\x01\\x01/\\x86\\xf7\\x0d\\x01\\x01\\x77/' "
        ">odd.der");
    run("{ echo '-----BEGIN CERTIFICATE-----'; openssl base64 -in odd.der; echo '-----END "
        "CERTIFICATE-----'; } >odd.pem"); /* With a key of an unknown kind. */
    run("{ cat odd.pem other-key.pem; echo text; openssl x509 -in ca.pem -trustout; } >mixed.pem");
    use_client("mixed.pem");
    (void)expect_trusted(loops[0]);
}
END_TEST

START_TEST(do_that_is_told_whom_to_trust_trusts_nobody_else)
{
    run("mkdir certs && cp ca.pem certs/ca-certificates.crt && cp ca.pem certs && openssl "
        "rehash certs");
    if (replace_the_systems()) {
        use_client(NULL);
        (void)expect_trusted(loops[0]);
    }
    use_client("other.pem");
    expect_refused();
}
END_TEST

START_TEST(do_on_a_system_without_certificates_trusts_nobody)
{
    struct job job;

    run("mkdir certs");
    if (replace_the_systems()) {
        use_client(NULL);
        job = get_on(loops[0]);
        ck_assert_msg(job.code == CF_EUNAVAIL, "%s: %s", cf_code_name(job.code), job.err.msg);
        ck_assert_msg(strstr(job.err.msg, SYSTEM_DIRECTORY) != NULL, "%s", job.err.msg);
    }
}
END_TEST

/* As many certificates as here take 50 to 100 ms to read, twice as many as a system has: not on a
 * loop, nor for each connection. */
START_TEST(do_works_little_to_trust)
{
    int64_t least_ns[LOOPS][2] = {{INT64_MAX, INT64_MAX}, {INT64_MAX, INT64_MAX}};

    run("for n in $(seq 300); do cat other.pem; done >all.pem; cat ca.pem >>all.pem");
    for (int i = 0; i < 4; i++) {
        use_client("all.pem");
        for (int k = 0; k < 2 * LOOPS; k++) {
            int64_t *least = &least_ns[k % LOOPS][k / LOOPS];
            int64_t worked_ns = expect_trusted(loops[k % LOOPS]).worked_ns;

            *least = worked_ns < *least ? worked_ns : *least;
        }
    }
    for (int k = 0; k < 2 * LOOPS; k++) {
        ck_assert_msg(least_ns[k % LOOPS][k / LOOPS] < bound_strictly(10 * CF_MS),
                      "connection %d takes %.1f ms of its loop", k / LOOPS + 1,
                      (double)least_ns[k % LOOPS][k / LOOPS] / 1e6);
    }
}
END_TEST

/* Nor does a loop wait for the disk: what is not there any more is not missed. */
START_TEST(do_reads_no_file)
{
    run("cp ca.pem once.pem");
    use_client("once.pem");
    run("rm once.pem");
    for (int i = 0; i < LOOPS; i++) {
        (void)expect_trusted(loops[i]);
    }
}
END_TEST

Suite *suite_client_tls(void)
{
    Suite *suite = suite_create("client_tls");
    TCase *tc_new = tcase_create("new");
    TCase *tc = tcase_create("do");

    tcase_add_checked_fixture(tc_new, setup, teardown);
    tcase_add_loop_test(tc_new, new_with_a_file_of_no_certificates_is_invalid, 0, 6);
    tcase_set_timeout(tc_new, 30);
    suite_add_tcase(suite, tc_new);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, do_trusts_whom_it_is_told_to_trust);
    tcase_add_test(tc, do_that_is_told_whom_to_trust_trusts_nobody_else);
    tcase_add_test(tc, do_on_a_system_without_certificates_trusts_nobody);
    tcase_add_test(tc, do_works_little_to_trust);
    tcase_add_test(tc, do_reads_no_file);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return suite;
}
