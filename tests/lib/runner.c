/* SPDX-License-Identifier: MIT */
/* The main program of every test binary: runs all suites of its kind.
 *
 * Compiled once for each kind, with that kind's directory first on the include path: suites.h there
 * lists the suites, `#define SUITES(X) X(err) X(ctx)`, and each has a `Suite *suite_err(void)`. A
 * kind that measures times defines WITNESSED there as well: see witness.h.
 * libcheck's environment chooses among them and says how: CK_RUN_SUITE, CK_RUN_CASE, CK_FORK=no,
 * CK_VERBOSITY; tests/README.md has the list. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "suites.h"
#include "witness.h"

#define DECLARE_SUITE(name) Suite *suite_##name(void);
SUITES(DECLARE_SUITE)
#undef DECLARE_SUITE

/* Of a case that sets no limit of its own. libcheck's four seconds are less than what a machine may
 * stand still for, and what EVENTUALLY() waits for before it says what never came. */
#define DEFAULT_TIMEOUT "30"

int main(void)
{
    SRunner *runner;
    int run;
    int failed;

    (void)setenv("CK_DEFAULT_TIMEOUT", DEFAULT_TIMEOUT, 0); /* Read by tcase_create(). */
    runner = srunner_create(NULL);
#define ADD_SUITE(name) srunner_add_suite(runner, suite_##name());
    SUITES(ADD_SUITE)
#undef ADD_SUITE

#ifdef WITNESSED
    witness_use(runner);
#endif
    srunner_run_all(runner, CK_ENV);
    run = srunner_ntests_run(runner);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);

    if (run == 0) {
        /* A misspelled CK_RUN_SUITE must not look like success. */
        fputs("no test was chosen\n", stderr);
        return EXIT_FAILURE;
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
