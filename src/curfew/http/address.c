/* SPDX-License-Identifier: MIT */
/* Addresses and networks: see address.h. A list is looked through from its start: it is that of a
 * few proxies, written by hand. */
#include "curfew/http/address.h"

#include <curfew/http.h>

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/words.h"

/* How an IPv6 address begins that maps one of IPv4. */
static const uint8_t MAPPED[12] = {[10] = 0xFF, [11] = 0xFF};

#define MAPPED_BITS 96

/* Of an IPv6 address: what a provider gives to one client at least. */
#define CLIENT_BYTES 8

#define SEPARATORS ", \t"

struct network {
    struct cf__address address;
    unsigned bits; /* That count, of 128. */
};

struct cf__networks {
    size_t n;
    struct network list[];
};

/* Internal helpers */

static bool is_mapped(const struct cf__address *address)
{
    return memcmp(address->bytes, MAPPED, sizeof(MAPPED)) == 0;
}

static bool is_none(const struct cf__address *address)
{
    static const struct cf__address none;

    return memcmp(address, &none, sizeof(none)) == 0;
}

/* The whole text as an address without a port. */
static bool read_ip(const char *text, size_t size, struct cf__address *out)
{
    char copy[INET6_ADDRSTRLEN];
    struct cf__address address = {{0}};

    if (size >= sizeof(copy) || memchr(text, '\0', size) != NULL) {
        return false;
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    memcpy(address.bytes, MAPPED, sizeof(MAPPED));
    if (inet_pton(AF_INET, copy, address.bytes + sizeof(MAPPED)) != 1 &&
        inet_pton(AF_INET6, copy, address.bytes) != 1) {
        return false;
    }
    *out = address;
    return true;
}

/* ":" and digits, or nothing at all. */
static bool is_port(const char *text, size_t size)
{
    size_t n = 1;

    while (n < size && text[n] >= '0' && text[n] <= '9') {
        n++;
    }
    return size == 0 || (text[0] == ':' && size > 1 && n == size);
}

/* The digits behind the slash of a network. */
static bool read_bits(const char *text, size_t size, unsigned most, unsigned *out)
{
    unsigned bits = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || size > 3) {
            return false;
        }
        bits = bits * 10 + (unsigned)(text[i] - '0');
    }
    *out = bits;
    return size > 0 && bits <= most;
}

/* Set what does not count to zero, so that "10.1.2.3/8" means what it can only mean. */
static void mask(struct cf__address *address, unsigned bits)
{
    for (unsigned i = 0; i < sizeof(address->bytes); i++) {
        unsigned kept = bits > i * 8 ? bits - i * 8 : 0;

        if (kept < 8) {
            address->bytes[i] &= (uint8_t)(0xFF00U >> kept);
        }
    }
}

static bool read_network(const char *text, size_t size, struct network *out)
{
    const char *slash = memchr(text, '/', size);
    size_t ip_size = slash != NULL ? (size_t)(slash - text) : size;
    unsigned most;
    unsigned bits;

    if (!read_ip(text, ip_size, &out->address)) {
        return false;
    }
    most = is_mapped(&out->address) && memchr(text, ':', ip_size) == NULL ? 32 : 128;
    bits = most;
    if (slash != NULL && !read_bits(slash + 1, size - ip_size - 1, most, &bits)) {
        return false;
    }
    out->bits = bits + (most == 32 ? MAPPED_BITS : 0);
    mask(&out->address, out->bits);
    return true;
}

/* Life cycle */

enum cf_code cf__networks_new(const char *text, struct cf__networks **out, struct cf_err *err)
{
    struct cf__networks *networks = calloc(
        1, sizeof(*networks) + cf__words_count(text, SEPARATORS) * sizeof(networks->list[0]));
    const char *word;
    size_t size;

    if (networks == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a list of networks");
    }
    while (cf__words_next(&text, SEPARATORS, &word, &size)) {
        if (!read_network(word, size, &networks->list[networks->n])) {
            free(networks);
            return cf_err_set(err, CF_EINVAL,
                              "\"%.*s\" is neither an address nor a network such as 10.0.0.0/8",
                              (int)(size < 64 ? size : 64), word);
        }
        networks->n++;
    }
    *out = networks;
    return CF_OK;
}

void cf__networks_free(struct cf__networks *networks)
{
    free(networks);
}

/* Operations */

void cf__address_of(const struct sockaddr *socket, struct cf__address *out)
{
    memset(out, 0, sizeof(*out));
    if (socket != NULL && socket->sa_family == AF_INET) {
        memcpy(out->bytes, MAPPED, sizeof(MAPPED));
        memcpy(out->bytes + sizeof(MAPPED), &((const struct sockaddr_in *)socket)->sin_addr, 4);
    } else if (socket != NULL && socket->sa_family == AF_INET6) {
        memcpy(out->bytes, &((const struct sockaddr_in6 *)socket)->sin6_addr, sizeof(out->bytes));
    }
}

bool cf__address_read(const char *text, size_t size, struct cf__address *out)
{
    const char *colon = memchr(text, ':', size);
    const char *end;
    size_t ip_size = size;

    if (size > 0 && text[0] == '[') {
        end = memchr(text, ']', size);
        return end != NULL && is_port(end + 1, size - (size_t)(end + 1 - text)) &&
               memchr(text + 1, ':', (size_t)(end - text) - 1) != NULL &&
               read_ip(text + 1, (size_t)(end - text) - 1, out);
    }
    if (colon != NULL && memchr(colon + 1, ':', size - (size_t)(colon + 1 - text)) == NULL) {
        ip_size = (size_t)(colon - text); /* One colon: that of a port. */
        if (!is_port(colon, size - ip_size)) {
            return false;
        }
    }
    return read_ip(text, ip_size, out);
}

void cf__address_write(const struct cf__address *address, char out[INET6_ADDRSTRLEN])
{
    bool mapped = is_mapped(address);
    const void *ip = mapped ? address->bytes + sizeof(MAPPED) : address->bytes;

    if (is_none(address) ||
        inet_ntop(mapped ? AF_INET : AF_INET6, ip, out, INET6_ADDRSTRLEN) == NULL) {
        out[0] = '\0';
    }
}

struct cf__address cf__address_client(const struct cf__address *address)
{
    struct cf__address client = *address;

    if (!is_mapped(&client)) {
        memset(client.bytes + CLIENT_BYTES, 0, sizeof(client.bytes) - CLIENT_BYTES);
    }
    return client;
}

/* Queries */

bool cf__networks_have(const struct cf__networks *networks, const struct cf__address *address)
{
    for (size_t i = 0; i < networks->n; i++) {
        struct cf__address masked = *address;

        mask(&masked, networks->list[i].bits);
        if (memcmp(&masked, &networks->list[i].address, sizeof(masked)) == 0) {
            return true;
        }
    }
    return false;
}

enum cf_code cf_http_proxies_check(const char *trusted_proxies, struct cf_err *err)
{
    struct cf__networks *networks = NULL;
    enum cf_code code =
        cf__networks_new(trusted_proxies != NULL ? trusted_proxies : "", &networks, err);

    cf__networks_free(networks);
    return code;
}
