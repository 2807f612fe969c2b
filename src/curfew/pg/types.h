/* SPDX-License-Identifier: MIT */
/* Types of PostgreSQL's as they travel in binary. The numbers are from pg_type.dat,
 * and never change. */
#ifndef CURFEW_PG_TYPES_H
#define CURFEW_PG_TYPES_H

#include <stdint.h>

enum cf__pg_oid {
    OID_BYTEA = 17,
    OID_NAME = 19,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_FLOAT8 = 701,
    OID_UNKNOWN = 705,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    OID_TIMESTAMPTZ = 1184,
};

/* PostgreSQL counts from 2000-01-01. */
#define EPOCH_2000_US INT64_C(946684800000000)

#endif
