/* SPDX-License-Identifier: MIT */
/* OpenSSL, which libpq uses to prove a password, made ready before it is needed.
 *
 * OpenSSL 3 makes its default context and its generator of random numbers at their first use, once:
 * if there is no memory then, they fail for the rest of the process, in which nobody can log in any
 * more; and RAND_status(), which libpq calls first, reads through the pointer to a lock that was
 * not made. The hashes of a provider, too, are looked up at the first use of one, all of them and
 * once: what was lost on the way for want of memory is "unsupported" from then on, and a password
 * cannot be proved. So all these are made when the database is, where a lack of memory is an error
 * like any other. What TLS needs besides is not looked at. */
#include "curfew/pg/pg_private.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/rand.h>

/* Before version 3 there is nothing of the kind. */
#if OPENSSL_VERSION_NUMBER >= 0x30000000L

/* Look up the hash that proves a password. False: it could not be, and never can again. */
static bool find_hash(void)
{
    EVP_MD *hash = EVP_MD_fetch(NULL, "SHA256", NULL);

    EVP_MD_free(hash);
    return hash != NULL;
}

enum cf_code cf__pg_openssl_prepare(struct cf_err *err)
{
    unsigned char byte;

    /* The context first: see above. */
    if (OSSL_LIB_CTX_get0_global_default() == NULL ||
        OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1 || RAND_status() != 1 ||
        RAND_bytes(&byte, 1) != 1 || !find_hash()) {
        return cf_err_set(err, CF_ENOMEM, "no memory for OpenSSL");
    }
    return CF_OK;
}

#else

enum cf_code cf__pg_openssl_prepare(struct cf_err *err)
{
    (void)err;
    return CF_OK;
}

#endif
