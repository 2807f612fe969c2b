/* SPDX-License-Identifier: MIT */
/* OpenSSL, which libpq uses to prove a password, made ready before it is needed.
 *
 * OpenSSL 3 makes its default context and its generator of random numbers at their first use, once:
 * if there is no memory then, they fail for the rest of the process, in which nobody can log in any
 * more; and RAND_status(), which libpq calls first, reads through the pointer to a lock that was
 * not made. The hashes of a provider, too, are looked up at the first use of one, all of them and
 * once: what was lost on the way for want of memory is "unsupported" from then on, and a password
 * cannot be proved. So all these are made when the database is, where a lack of memory is an error
 * like any other. What TLS needs besides is not looked at.
 * libpq may be built without OpenSSL, or with one that has no such calls:
 * they are looked up, and not linked. */
#include "curfew/pg/pg_private.h"

#include <dlfcn.h>
#include <stddef.h>

/* Of openssl/crypto.h. */
#define LOAD_CONFIG UINT64_C(0x40)

/* Look up the hash that proves a password. False: it could not be, and never can again. An OpenSSL
 * before 3 has no such call, and nothing to look up. */
static bool find_hash(void)
{
    void *(*fetch)(void *context, const char *name, const char *properties);
    void (*let_go)(void *hash);
    void *hash;

    *(void **)&fetch = dlsym(RTLD_DEFAULT, "EVP_MD_fetch");
    *(void **)&let_go = dlsym(RTLD_DEFAULT, "EVP_MD_free");
    if (fetch == NULL || let_go == NULL) {
        return true;
    }
    hash = fetch(NULL, "SHA256", NULL);
    let_go(hash);
    return hash != NULL;
}

enum cf_code cf__pg_openssl_prepare(struct cf_err *err)
{
    void *(*make_context)(void);
    int (*init)(uint64_t what, const void *settings);
    int (*make_generator)(void);
    int (*make_bytes)(unsigned char *out, int size);
    unsigned char byte;

    /* As POSIX has it: a pointer to a function cannot be cast from one to an object. */
    *(void **)&make_context = dlsym(RTLD_DEFAULT, "OSSL_LIB_CTX_get0_global_default");
    *(void **)&init = dlsym(RTLD_DEFAULT, "OPENSSL_init_crypto");
    *(void **)&make_generator = dlsym(RTLD_DEFAULT, "RAND_status");
    *(void **)&make_bytes = dlsym(RTLD_DEFAULT, "RAND_bytes");
    if (make_context == NULL || init == NULL || make_generator == NULL || make_bytes == NULL) {
        return CF_OK;
    }
    /* The context first: see above. */
    if (make_context() == NULL || init(LOAD_CONFIG, NULL) != 1 || make_generator() != 1 ||
        make_bytes(&byte, 1) != 1 || !find_hash()) {
        return cf_err_set(err, CF_ENOMEM, "no memory for OpenSSL");
    }
    return CF_OK;
}
