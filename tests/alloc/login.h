/* SPDX-License-Identifier: MIT */
/* A role whose password is proved in two steps instead of 4,096, which are 24,000 allocations, one
 * like the other: with it every allocation of a connection can be made to fail.
 *
 *     login_make();
 *     ... everybody who asks for CF_TEST_PG_URL is this role ...
 *     login_drop();
 *
 * Thread safety: the test's thread only. */
#ifndef LOGIN_H
#define LOGIN_H

/* Make the role, which may do what that of CF_TEST_PG_URL may, and put it there in its place. Where
 * CF_TEST_PG_ADMIN_URL is not set, or libpq has no OpenSSL, all stays as it is. */
void login_make(void);

/* Drop it, which by then has nothing of its own. */
void login_drop(void);

#endif
