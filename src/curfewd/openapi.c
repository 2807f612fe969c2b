/* SPDX-License-Identifier: MIT */
/* See openapi.h. The assembler copies the file: no tool is needed that a compiler does not bring,
 * and no generated source. tests/unit/test_openapi.c holds it to the table of routes,
 * tests/e2e/test_openapi.c to what the service answers. */
#include "curfewd/openapi.h"

#include <stdlib.h>

#include <curfew/http.h>

/* Where -I leads to, as headers are found. */
__asm__(".pushsection .rodata\n"
        ".hidden openapi_text\n"
        ".hidden openapi_end\n"
        ".global openapi_text\n"
        ".global openapi_end\n"
        "openapi_text:\n"
        ".incbin \"curfewd/openapi.json\"\n"
        "openapi_end:\n"
        ".byte 0\n"
        ".popsection\n");

enum cf_code openapi_new(struct openapi **out, struct cf_err *err)
{
    struct openapi *openapi = calloc(1, sizeof(*openapi));
    size_t size = (size_t)(openapi_end - openapi_text);
    char bare[ETAG_BARE_SIZE];
    enum cf_code code;

    if (openapi == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for the description of the interface");
    }
    etag_make(openapi_text, size, bare);
    etag_quote(bare, openapi->etag);
    code = cf_value_new(openapi_text, size, &openapi->plain, err);
    if (code == CF_OK) {
        code = cf_http_gzip(openapi_text, size, &openapi->gzip, err);
    }
    if (code != CF_OK) {
        openapi_free(openapi);
        return code;
    }
    *out = openapi;
    return CF_OK;
}

void openapi_free(struct openapi *openapi)
{
    if (openapi != NULL) {
        cf_value_unref(openapi->plain);
        cf_value_unref(openapi->gzip);
        free(openapi);
    }
}
