/* SPDX-License-Identifier: MIT */
/* Whom the HTTP client trusts: see client.h.
 *
 * libcurl would read the file of certificates on each loop, for the first connection by https: a
 * disk to wait for, and some 30 ms in which OpenSSL parses every authority that there is. So it is
 * read when the client is made, once, and the connections of all loops are checked against the same
 * store.
 *
 * It is their store for checking only. The other one that a connection has stays libcurl's, which
 * fills it (with nothing, since it is told of no file) and sets flags in it, before 8.3 even after
 * it has called us: in ours it would do so on all loops at once.
 *
 * This takes the very OpenSSL that libcurl uses. Where libcurl uses another one or another library,
 * or where the system has no such file, libcurl reads the certificates itself, as it would. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "curfew/core/err_private.h"
#include "curfew/http/client_private.h"

/* Constants and types */

struct cf__trust {
    const char *ca_file; /* Borrowed; NULL: the system's. Constant after new, as is all. */
    X509_STORE *store;   /* NULL: libcurl reads them. */
    struct cf_err why;   /* CF_OK, or why the system's cannot be used. */
};

/* Written once, by cf__trust_init(). */
static const char *system_file; /* NULL: untested, a system that has a directory only. */
static bool is_libcurls;        /* Our OpenSSL: libcurl takes what it makes. */

/* Internal helpers */

/* What errno says of the file. */
static enum cf_code bad_file(const char *path, struct cf_err *err)
{
    enum cf_code code = CF_EIO;

    if (errno == ENOMEM) {
        code = CF_ENOMEM;
    } else if (errno == ENOENT || errno == ENOTDIR || errno == EISDIR || errno == EACCES) {
        code = CF_EINVAL; /* And will be. */
    }
    return cf_err_set(err, code, "read %s: %s", path, strerror(errno));
}

/* Why there is no certificate where the n-th should begin: CF_OK, because the file has ended. */
static enum cf_code explain_end(const char *path, FILE *file, size_t n, struct cf_err *err)
{
    unsigned long last = ERR_peek_last_error();
    unsigned long first = ERR_peek_error();
    const char *why = ERR_reason_error_string(first);

    if (ferror(file)) {
        return bad_file(path, err);
    }
    if (ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE) {
        return n > 1 ? CF_OK : cf_err_set(err, CF_EINVAL, "read %s: no certificate", path);
    }
    if ((ERR_GET_LIB(first) != ERR_LIB_PEM && ERR_GET_LIB(first) != ERR_LIB_ASN1) ||
        ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE ||
        ERR_GET_REASON(last) == ERR_R_MALLOC_FAILURE) {
        return cf_err_set(err, CF_ENOMEM, "no memory for certificates");
    }
    return cf_err_set(err, CF_EINVAL, "read %s: certificate %zu: %s", path, n,
                      why != NULL ? why : "malformed");
}

/* Whether its key was read. Without memory for that OpenSSL goes on, and nothing that this
 * authority has signed would be trusted. A key of a kind that OpenSSL does not know has no second
 * reading. */
static bool is_whole(const X509 *certificate)
{
    X509 *again;
    bool is_unknown;

    if (X509_get0_pubkey(certificate) != NULL) {
        return true;
    }
    again = X509_dup(certificate);
    is_unknown = again != NULL && X509_get0_pubkey(again) == NULL;
    X509_free(again);
    ERR_clear_error();
    return is_unknown;
}

/* Without one of ours, OpenSSL asks at the terminal for that of an encrypted block. */
static int refuse_pass_phrase(char *out, int size, int writes, void *arg)
{
    (void)out;
    (void)size;
    (void)writes;
    (void)arg;
    return -1;
}

/* All certificates of the file, or none: OpenSSL's own function would forget those that it had no
 * memory for. */
static enum cf_code add_certificates(X509_STORE *store, const char *path, FILE *file, BIO *bio,
                                     struct cf_err *err)
{
    size_t n = 1;
    X509 *certificate;

    ERR_clear_error();
    while ((certificate = PEM_read_bio_X509_AUX(bio, NULL, refuse_pass_phrase, NULL)) != NULL) {
        bool added = is_whole(certificate) && X509_STORE_add_cert(store, certificate) == 1;

        X509_free(certificate);
        if (!added) {
            return cf_err_set(err, CF_ENOMEM, "no memory for certificates");
        }
        n++;
    }
    return explain_end(path, file, n, err);
}

static enum cf_code read_file(const char *path, X509_STORE *store, struct cf_err *err)
{
    FILE *file = fopen(path, "re");
    enum cf_code code;
    BIO *bio;

    if (file == NULL) {
        return bad_file(path, err);
    }
    bio = BIO_new_fp(file, BIO_NOCLOSE);
    code = bio != NULL ? add_certificates(store, path, file, bio, err)
                       : cf_err_set(err, CF_ENOMEM, "no memory for certificates");
    (void)BIO_free(bio);
    (void)fclose(file);
    ERR_clear_error();
    return code;
}

/* As libcurl would: a certificate in the file is trusted although nobody vouches for it. */
static enum cf_code make_store(const char *path, X509_STORE **out, struct cf_err *err)
{
    X509_STORE *store = X509_STORE_new();
    enum cf_code code;

    if (store == NULL ||
        X509_STORE_set_flags(store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN) != 1) {
        X509_STORE_free(store);
        return cf_err_set(err, CF_ENOMEM, "no memory for certificates");
    }
    code = read_file(path, store, err);
    if (code != CF_OK) {
        X509_STORE_free(store);
        return code;
    }
    *out = store;
    return CF_OK;
}

/* libcurl, for a new connection. */
static CURLcode give_store(CURL *easy, void *ssl_ctx, void *arg)
{
    X509_STORE *store = arg;

    (void)easy;
    return SSL_CTX_set1_verify_cert_store((SSL_CTX *)ssl_ctx, store) == 1 ? CURLE_OK
                                                                          : CURLE_OUT_OF_MEMORY;
}

/* Life cycle */

void cf__trust_init(void)
{
    const curl_version_info_data *libcurl = curl_version_info(CURLVERSION_NOW);

    system_file = libcurl->cainfo;
/* Untested without: one before 3 says it otherwise than libcurl does. */
#ifdef OPENSSL_VERSION_STRING
    char ours[64];

    (void)snprintf(ours, sizeof(ours), "OpenSSL/%s", OpenSSL_version(OPENSSL_VERSION_STRING));
    is_libcurls = libcurl->ssl_version != NULL && strcmp(libcurl->ssl_version, ours) == 0;
#endif
    tzset(); /* A file, too, which else the first look at a certificate's dates would read. */
}

enum cf_code cf__trust_new(const char *ca_file, struct cf__trust **out, struct cf_err *err)
{
    const char *path = ca_file != NULL ? ca_file : system_file;
    struct cf__trust *trust = calloc(1, sizeof(*trust));
    enum cf_code code = CF_OK;

    if (trust == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for certificates");
    }
    trust->ca_file = ca_file;
    if (path != NULL && is_libcurls) {
        code = make_store(path, &trust->store, &trust->why);
    }
    if (code != CF_OK) {
        (void)cf_err_wrap(&trust->why, code, "certificates");
    }
    if (code != CF_OK && (code != CF_EINVAL || ca_file != NULL)) {
        (void)cf__err_give(err, &trust->why);
        cf__trust_free(trust);
        return code;
    }
    *out = trust;
    return CF_OK;
}

void cf__trust_free(struct cf__trust *trust)
{
    if (trust != NULL) {
        X509_STORE_free(trust->store);
        free(trust);
    }
}

/* Operations */

enum cf_code cf__trust_check(const struct cf__trust *trust, struct cf_err *err)
{
    if (trust->why.code == CF_OK) {
        return CF_OK;
    }
    (void)cf__err_give(err, &trust->why);
    return cf_err_recode(err, CF_EUNAVAIL);
}

bool cf__trust_apply(const struct cf__trust *trust, CURL *easy)
{
    bool has_file = trust->ca_file != NULL || system_file != NULL;

    if (has_file && curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) != CURLE_OK) {
        return false;
    }
    if (trust->store != NULL) {
        return curl_easy_setopt(easy, CURLOPT_CAINFO, NULL) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, give_store) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, trust->store) == CURLE_OK;
    }
    return trust->ca_file == NULL ||
           curl_easy_setopt(easy, CURLOPT_CAINFO, trust->ca_file) == CURLE_OK;
}
