/* SPDX-License-Identifier: MIT */
/* What PostgreSQL says by which something is done here, under the names of its appendix A. */
#ifndef CURFEW_PG_SQLSTATE_H
#define CURFEW_PG_SQLSTATE_H

#define CF__SQLSTATE_FEATURE_NOT_SUPPORTED "0A000"
#define CF__SQLSTATE_INVALID_SQL_STATEMENT_NAME "26000"
#define CF__SQLSTATE_DUPLICATE_PREPARED_STATEMENT "42P05"
#define CF__SQLSTATE_QUERY_CANCELED "57014"

#endif
