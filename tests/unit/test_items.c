/* SPDX-License-Identifier: MIT */
/* Lists in headers: where they are cut, and where they are not. */
#include "curfew/http/items.h"

#include <check.h>
#include <stdio.h>

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Helpers */

/* All pieces, each in brackets; one that is none as "-". */
static void append(char *out, size_t size, struct cf__span piece)
{
    size_t n = strlen(out);

    if (piece.at == NULL) {
        (void)snprintf(out + n, size - n, "-");
    } else {
        (void)snprintf(out + n, size - n, "[%.*s]", (int)piece.size, piece.at);
    }
}

/* item_next, tag_next */

static const struct {
    const char *value;
    const char *items;
    const char *tags; /* NULL: the same. */
} lists[] = {
    {"", "[]", NULL},
    {"a", "[a]", NULL},
    {"a,b", "[a][b]", NULL},
    {" \ta ,\tb c\t", "[a][b c]", NULL},
    {",a,,b,", "[][a][][b][]", NULL},
    {"\"a,b\",c", "[\"a,b\"][c]", NULL},
    {"x=\"a,b\";y,c", "[x=\"a,b\";y][c]", NULL},
    {"\"a\\\",b\",c", "[\"a\\\",b\"][c]", "[\"a\\\"][b\",c]"},
    {"\"a\\\\\",b", "[\"a\\\\\"][b]", NULL},
    {"W/\"a\\\", \"b\"", "[W/\"a\\\", \"b\"]", "[W/\"a\\\"][\"b\"]"},
    {"\"a,b", "[\"a,b]", NULL},
    {"\"", "[\"]", NULL},
    {"\"\\", "[\"\\]", NULL},
};

START_TEST(item_next_cuts_outside_of_quotes)
{
    const char *value = lists[_i].value;
    const char *tags = lists[_i].tags != NULL ? lists[_i].tags : lists[_i].items;
    struct cf__span rest = cf__span_of(value);
    struct cf__span piece;
    char text[256] = "";

    while (cf__item_next(&rest, ',', &piece)) {
        append(text, sizeof(text), piece);
    }
    ck_assert_str_eq(text, lists[_i].items);
    ck_assert(!cf__item_next(&rest, ',', &piece));

    text[0] = '\0';
    rest = cf__span_of(value);
    while (cf__tag_next(&rest, &piece)) {
        append(text, sizeof(text), piece);
    }
    ck_assert_str_eq(text, tags);
}
END_TEST

/* item_name */

static const struct {
    const char *item;
    const char *parts;
} pairs[] = {
    {"", "[]-"},
    {"name", "[name]-"},
    {"name=", "[name][]"},
    {"name=value", "[name][value]"},
    {"name = value", "[name][value]"},
    {"name=\"a value\"", "[name][a value]"},
    {"name=\"\"", "[name][]"},
    {"name=\"", "[name][\"]"},
    {"name=a=b", "[name][a=b]"},
    {"\"a=b\"", "[\"a=b\"]-"},
    {"=value", "[][value]"},
};

START_TEST(item_name_ends_at_the_equals_sign)
{
    struct cf__span value;
    struct cf__span name = cf__item_name(cf__span_of(pairs[_i].item), &value);
    char text[64] = "";

    append(text, sizeof(text), name);
    append(text, sizeof(text), value);
    ck_assert_str_eq(text, pairs[_i].parts);
}
END_TEST

/* item_weight */

static const struct {
    const char *item;
    int weight;
} weights[] = {
    {"a", 1000},
    {"a;q=1", 1000},
    {"a;q=1.", 1000},
    {"a;q=1.000", 1000},
    {"a;q=0", 0},
    {"a;q=0.0", 0},
    {"a;q=0.001", 1},
    {"a;q=0.25", 250},
    {"a ; Q = 0.5 ; x=y", 500},
    {"a;x=\"q=0;q=0\"", 1000},
    {"a;x=\"\\\";q=0\"", 1000},
    {"a;level=1;q=0.4", 400},
    {"a;q=0.4;q=0.6", 600},
    /* These are no weights. */
    {"a;q", 1000},
    {"a;q=", 1000},
    {"a;q=.5", 1000},
    {"a;q=0.1234", 1000},
    {"a;q=1.001", 1000},
    {"a;q=2", 1000},
    {"a;q=-1", 1000},
    {"a;q=0,5", 1000},
    {"a;q=0.x", 1000},
    {"a;qq=0", 1000},
};

START_TEST(item_weight_is_the_q)
{
    struct cf__span name;

    ck_assert_int_eq(cf__item_weight(cf__span_of(weights[_i].item), &name), weights[_i].weight);
    ck_assert(cf__span_is(name, "A"));
    ck_assert(!cf__span_is(name, "ab"));
    ck_assert(!cf__span_is(name, ""));
}
END_TEST

Suite *suite_items(void)
{
    Suite *suite = suite_create("items");
    TCase *tc = tcase_create("items");

    tcase_add_loop_test(tc, item_next_cuts_outside_of_quotes, 0, N(lists));
    tcase_add_loop_test(tc, item_name_ends_at_the_equals_sign, 0, N(pairs));
    tcase_add_loop_test(tc, item_weight_is_the_q, 0, N(weights));
    suite_add_tcase(suite, tc);
    return suite;
}
