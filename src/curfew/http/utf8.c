/* SPDX-License-Identifier: MIT */
/* UTF-8: see utf8.h. The table is Unicode's table 3-7 of well-formed sequences. */
#include "curfew/http/utf8.h"

/* A range of first bytes, and what may follow: the second byte's range, the third and fourth are
 * always 80 to BF. */
struct form {
    unsigned char first_min, first_max;
    unsigned char second_min, second_max;
    unsigned char size;
};

static const struct form forms[] = {
    {0xC2, 0xDF, 0x80, 0xBF, 2},                              /* C0 and C1 would be overlong. */
    {0xE0, 0xE0, 0xA0, 0xBF, 3},                              /* Less would be overlong. */
    {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, /* More would be a surrogate. */
    {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4}, /* Less would be overlong. */
    {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}, /* More would be above U+10FFFF. */
};

static bool follows(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

static bool matches(const struct form *form, const unsigned char *bytes, size_t size)
{
    if (bytes[0] < form->first_min || bytes[0] > form->first_max || size < form->size) {
        return false;
    }
    if (bytes[1] < form->second_min || bytes[1] > form->second_max) {
        return false;
    }
    return (form->size < 3 || follows(bytes[2])) && (form->size < 4 || follows(bytes[3]));
}

size_t cf__utf8_char_size(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;

    if (size == 0) {
        return 0;
    }
    if (bytes[0] < 0x80) {
        return 1;
    }
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (matches(&forms[i], bytes, size)) {
            return forms[i].size;
        }
    }
    return 0;
}

bool cf__utf8_valid(const char *text, size_t size)
{
    while (size > 0) {
        size_t n = cf__utf8_char_size(text, size);

        if (n == 0) {
            return false;
        }
        text += n;
        size -= n;
    }
    return true;
}
