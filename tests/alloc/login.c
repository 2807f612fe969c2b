/* SPDX-License-Identifier: MIT */
/* The role: see login.h. What PostgreSQL keeps of a password says how often it is hashed, and takes
 * any number; only where PostgreSQL makes it itself it is always 4,096 (before version 16). */
#include "login.h"

#include <check.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "pgview.h"

#define ROLE "curfew_alloc"
#define STEPS 2
#define HASH_SIZE 32
#define SALT_SIZE 16

/* Of OpenSSL, which libpq brings along: looked up, so that its headers are not needed. */
static struct {
    const void *(*sha256)(void);
    int (*derive)(const char *secret, int size, const unsigned char *salt, int salt_size, int steps,
                  const void *hash, int out_size, unsigned char *out);
    unsigned char *(*hmac)(const void *hash, const void *key, int key_size,
                           const unsigned char *data, size_t size, unsigned char *out,
                           unsigned *out_size);
    int (*digest)(const void *data, size_t size, unsigned char *out, unsigned *out_size,
                  const void *hash, void *engine);
    int (*encode)(unsigned char *out, const unsigned char *data, int size);
} openssl;

/* Internal helpers */

static bool find_openssl(void)
{
    *(void **)&openssl.sha256 = dlsym(RTLD_DEFAULT, "EVP_sha256");
    *(void **)&openssl.derive = dlsym(RTLD_DEFAULT, "PKCS5_PBKDF2_HMAC");
    *(void **)&openssl.hmac = dlsym(RTLD_DEFAULT, "HMAC");
    *(void **)&openssl.digest = dlsym(RTLD_DEFAULT, "EVP_Digest");
    *(void **)&openssl.encode = dlsym(RTLD_DEFAULT, "EVP_EncodeBlock");
    return openssl.sha256 != NULL && openssl.derive != NULL && openssl.hmac != NULL &&
           openssl.digest != NULL && openssl.encode != NULL;
}

static void make_password(char out[2 * SALT_SIZE + 1])
{
    unsigned char bytes[SALT_SIZE];

    ck_assert_int_eq(getrandom(bytes, sizeof(bytes), 0), sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        (void)sprintf(out + 2 * i, "%02x", bytes[i]);
    }
}

/* RFC 5803. */
static void make_verifier(const char *password, char *out, size_t size)
{
    unsigned char salt[SALT_SIZE] = "curfew, version";
    unsigned char salted[HASH_SIZE];
    unsigned char client[HASH_SIZE];
    unsigned char stored[HASH_SIZE];
    unsigned char server[HASH_SIZE];
    unsigned char texts[3][2 * HASH_SIZE];
    const void *hash = openssl.sha256();

    ck_assert_int_eq(openssl.derive(password, (int)strlen(password), salt, sizeof(salt), STEPS,
                                    hash, sizeof(salted), salted),
                     1);
    (void)openssl.hmac(hash, salted, HASH_SIZE, (const unsigned char *)"Client Key", 10, client,
                       NULL);
    (void)openssl.hmac(hash, salted, HASH_SIZE, (const unsigned char *)"Server Key", 10, server,
                       NULL);
    ck_assert_int_eq(openssl.digest(client, sizeof(client), stored, NULL, hash, NULL), 1);
    (void)openssl.encode(texts[0], salt, sizeof(salt));
    (void)openssl.encode(texts[1], stored, sizeof(stored));
    (void)openssl.encode(texts[2], server, sizeof(server));
    (void)snprintf(out, size, "SCRAM-SHA-256$%d:%s$%s:%s", STEPS, (char *)texts[0],
                   (char *)texts[1], (char *)texts[2]);
}

static void drop(PGconn *pg)
{
    pgview_exec(pg, "do $$ begin"
                    " if exists (select from pg_roles where rolname = '" ROLE "') then"
                    "  drop owned by " ROLE " cascade; drop role " ROLE ";"
                    " end if; end $$");
}

/* Put role and password in place of those that the URL has. */
static void use_role(PGconn *pg, const char *password)
{
    char url[512];

    (void)snprintf(url, sizeof(url), "postgresql://" ROLE ":%s@%s:%s/%s", password, PQhost(pg),
                   PQport(pg), PQdb(pg));
    ck_assert_int_eq(setenv("CF_TEST_PG_URL", url, 1), 0);
}

/* Operations */

void login_make(void)
{
    const char *admin_url = getenv("CF_TEST_PG_ADMIN_URL");
    char password[2 * SALT_SIZE + 1];
    char verifier[256];
    char sql[512];
    PGconn *admin;
    PGconn *pg;

    if (admin_url == NULL || !find_openssl()) {
        return;
    }
    make_password(password);
    make_verifier(password, verifier, sizeof(verifier));
    pg = pgview_open(NULL);
    admin = pgview_open(admin_url);
    drop(admin);
    (void)snprintf(sql, sizeof(sql),
                   "create role " ROLE " login password '%s'; grant \"%s\" to " ROLE, verifier,
                   PQuser(pg));
    pgview_exec(admin, sql);
    use_role(pg, password);
    PQfinish(admin);
    PQfinish(pg);
}

void login_drop(void)
{
    const char *admin_url = getenv("CF_TEST_PG_ADMIN_URL");

    if (admin_url != NULL) {
        PGconn *admin = pgview_open(admin_url);

        drop(admin);
        PQfinish(admin);
    }
}
