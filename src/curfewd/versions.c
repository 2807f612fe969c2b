/* SPDX-License-Identifier: MIT */
/* Versions as the libraries themselves say them: see versions.h. */
#include "curfewd/versions.h"

#include <stdio.h>

#include <jansson.h>
#include <libpq-fe.h>
#include <microhttpd.h>
#include <uv.h>
#include <zlib.h>

#include <curfew/base.h>

size_t versions(struct version out[VERSIONS_MAX])
{
    static _Thread_local char libpq[16];
    size_t n = 0;

    (void)snprintf(libpq, sizeof(libpq), "%d.%d", PQlibVersion() / 10000, PQlibVersion() % 10000);
    out[n++] = (struct version){"curfewd", CF_VERSION};
    out[n++] = (struct version){"libmicrohttpd", MHD_get_version()};
    out[n++] = (struct version){"libpq", libpq};
    out[n++] = (struct version){"libuv", uv_version_string()};
    out[n++] = (struct version){"jansson", jansson_version_str()};
    out[n++] = (struct version){"zlib", zlibVersion()};
    return n;
}
