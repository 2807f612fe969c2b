/* SPDX-License-Identifier: MIT */
/* Variables that look like settings and are none: see config.h.
 *
 * In a file one ends the start; the environment has them without anybody's doing. Kubernetes tells
 * each container where the services are: of one called curfew, or curfew-api, in variables that
 * begin like ours. */
#include "curfewd/config_private.h"

#include <regex.h>
#include <string.h>
#include <unistd.h>

/* Constants */

#define PREFIX "CURFEW_"

/* CURFEW_SERVICE_HOST, CURFEW_SERVICE_PORT_HTTP, CURFEW_API_PORT_8080_TCP_ADDR; and CURFEW_PORT if
 * it is a URL: a number is one that a person has set. */
#define OF_KUBERNETES                                                                              \
    "^CURFEW(_[A-Z0-9_]+)?_"                                                                       \
    "(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=[a-z]+://|"                                   \
    "PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=)"

/* Internal helpers */

/* Append a name, or "..." where it would not fit. */
static void add(char *out, size_t size, const char *name, size_t length)
{
    static const char more[] = ", ...";
    char quoted[CONFIG_QUOTED_SIZE];
    size_t n = strlen(out);
    const char *text = config_quote(name, length, quoted);

    if (n + strlen(", ") + strlen(text) + sizeof(more) <= size) {
        (void)snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", text);
    } else if (strcmp(out + n - strlen(more), more) != 0) {
        (void)snprintf(out + n, size - n, "%s", more);
    }
}

/* Operations */

bool config_unknown(char out[CONFIG_UNKNOWN_SIZE])
{
    regex_t of_kubernetes;
    bool is_compiled = regcomp(&of_kubernetes, OF_KUBERNETES, REG_EXTENDED | REG_NOSUB) == 0;

    out[0] = '\0';
    for (char **at = environ; is_compiled && *at != NULL; at++) {
        size_t length = strcspn(*at, "=");
        bool is_path;

        if (strncmp(*at, PREFIX, strlen(PREFIX)) == 0 &&
            config_find_variable(*at, length, &is_path) == NULL &&
            regexec(&of_kubernetes, *at, 0, NULL, 0) != 0) {
            add(out, CONFIG_UNKNOWN_SIZE, *at, length);
        }
    }
    if (is_compiled) {
        regfree(&of_kubernetes);
    } /* Without memory nothing is said: it is a hint. */
    return out[0] != '\0';
}
