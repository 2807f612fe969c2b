/* SPDX-License-Identifier: MIT */
/* Versions as the libraries themselves say them: see versions.h. */
#include "curfewd/versions.h"

#include <pthread.h>
#include <stdio.h>

#include <curl/curl.h>
#include <jansson.h>
#include <jpeglib.h>
#include <libpq-fe.h>
#include <microhttpd.h>
#include <openssl/crypto.h>
#include <png.h>
#include <uv.h>
#include <webp/decode.h>
#include <zlib.h>

#include <curfew/base.h>

/* libjpeg-turbo does not say its own when it runs: that is of the headers. */
#define QUOTE(text) #text
#define QUOTE_VALUE(macro) QUOTE(macro)

static void write_webp_version(char *out, size_t size)
{
    unsigned version = (unsigned)WebPGetDecoderVersion(); /* A byte each. */

    (void)snprintf(out, size, "%u.%u.%u", version >> 16, version >> 8 & 0xFF, version & 0xFF);
}

static const char *curl_number;

/* Once, since libcurl writes to buffers of its own to say it. */
static void ask_curl(void)
{
    curl_number = curl_version_info(CURLVERSION_NOW)->version;
}

size_t versions(struct version out[VERSIONS_MAX])
{
    static pthread_once_t curl_asked = PTHREAD_ONCE_INIT;
    static _Thread_local char libpq[16];
    static _Thread_local char webp[16];
    size_t n = 0;

    (void)snprintf(libpq, sizeof(libpq), "%d.%d", PQlibVersion() / 10000, PQlibVersion() % 10000);
    write_webp_version(webp, sizeof(webp));
    (void)pthread_once(&curl_asked, ask_curl);
    out[n++] = (struct version){"curfewd", CF_VERSION};
    out[n++] = (struct version){"libmicrohttpd", MHD_get_version()};
    out[n++] = (struct version){"libpq", libpq};
    out[n++] = (struct version){"libuv", uv_version_string()};
    out[n++] = (struct version){"jansson", jansson_version_str()};
    out[n++] = (struct version){"libcurl", curl_number};
    out[n++] = (struct version){"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)};
    out[n++] = (struct version){"zlib", zlibVersion()};
    out[n++] = (struct version){"libjpeg-turbo", QUOTE_VALUE(LIBJPEG_TURBO_VERSION)};
    out[n++] = (struct version){"libpng", png_get_libpng_ver(NULL)};
    out[n++] = (struct version){"libwebp", webp};
    return n;
}
