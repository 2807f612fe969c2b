/* SPDX-License-Identifier: MIT */
/* A fiber that overflows its stack says so before the process dies. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/loop.h>

/* Helpers */

/* ASan reports overflows itself, and TSan gives fibers stacks of its own size. */
static bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
    return false;
#endif
}

/* Deeper than any stack here: it never comes to the end. */
static int recurse(int depth)
{
    volatile char frame[512];

    frame[0] = (char)depth;
    return depth == 0 ? 0 : recurse(depth - 1) + frame[0];
}

static void overflow(void *arg)
{
    (void)arg;
    (void)recurse(10000000);
}

static void fault_elsewhere(void *arg)
{
    volatile char *page = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)arg;
    page[0] = 1;
}

/* Run `fn` as a fiber in a process of its own; how that died, and what it said. */
static int die_of(cf_fiber_fn fn, char *out, size_t size)
{
    int fds[2];
    int status;
    ssize_t n;
    pid_t pid;

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct cf_loop *loop;

        (void)dup2(fds[1], STDERR_FILENO);
        if (cf_loop_report_overflow(NULL) == CF_OK && cf_loop_new(NULL, &loop, NULL) == CF_OK &&
            cf_loop_call(loop, fn, NULL, NULL) == CF_OK) {
            cf_loop_free(loop);
        }
        _exit(0);
    }
    (void)close(fds[1]);
    n = read(fds[0], out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    (void)close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* report_overflow */

START_TEST(report_overflow_names_the_fault_before_the_process_dies)
{
    char said[256];

    ck_assert_int_eq(die_of(overflow, said, sizeof(said)), SIGSEGV);
    ck_assert_ptr_nonnull(strstr(said, "stack overflow in fiber"));
}
END_TEST

START_TEST(report_overflow_leaves_another_fault_alone)
{
    char said[256];

    ck_assert_int_eq(die_of(fault_elsewhere, said, sizeof(said)), SIGSEGV);
    ck_assert_str_eq(said, "");
}
END_TEST

Suite *suite_overflow(void)
{
    Suite *suite = suite_create("overflow");
    TCase *report = tcase_create("report_overflow");

    tcase_set_tags(report, "fork kernel");
    if (!is_sanitized()) {
        tcase_add_test(report, report_overflow_names_the_fault_before_the_process_dies);
        tcase_add_test(report, report_overflow_leaves_another_fault_alone);
    }
    suite_add_tcase(suite, report);
    return suite;
}
