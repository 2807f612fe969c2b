-- SPDX-License-Identifier: MIT
-- Pages of orders of one status. Without it, a status that few orders have is found by a walk over
-- all of them.

create index orders_status_newest_idx on orders (status, created_at desc, id desc);
