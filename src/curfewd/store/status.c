/* SPDX-License-Identifier: MIT */
/* See status.h. */
#include "curfewd/store/status.h"

#include <string.h>

const char *const store_statuses[STORE_STATUS_COUNT] = {"pending", "paid", "shipped", "cancelled"};

bool store_is_status(const char *text)
{
    for (int i = 0; i < STORE_STATUS_COUNT; i++) {
        if (strcmp(text, store_statuses[i]) == 0) {
            return true;
        }
    }
    return false;
}
