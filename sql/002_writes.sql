-- SPDX-License-Identifier: MIT
-- What writing takes: versions of orders, answers that are kept for a repeated request, and word to
-- every instance of the service of what has changed.

alter table orders
    -- What an ETag shows. Counted by a trigger, so that it is right whoever writes.
    add column version bigint not null default 1,
    -- Sums of orders stay within a bigint for as long as there are fewer than ninety million of these.
    add constraint orders_total_cents_max check (total_cents <= 100000000000);

create function count_version() returns trigger language plpgsql as $$
begin
    new.version := old.version + 1;
    return new;
end
$$;

create trigger orders_version before update on orders
    for each row when (old.* is distinct from new.*) execute function count_version();

-- A request that changes something comes with a key of its client's choice, and its answer is kept
-- with the change, in one transaction: either both are there or neither. `fingerprint` tells whether
-- the same key comes with the same request. A row without an answer is seen by no one but the
-- transaction that writes it.
create table idempotency_keys (
    route       text not null,
    key         text not null,
    fingerprint bytea not null,
    status      int,
    location    text,
    etag        text,
    body        text,
    created_at  timestamptz not null default now(),

    constraint idempotency_keys_pkey primary key (route, key),
    constraint idempotency_keys_key_check check (char_length(key) between 1 and 255)
);

create index idempotency_keys_age_idx on idempotency_keys (created_at);

-- Whoever keeps dashboards in memory listens to the channel curfew_dashboards. A statement says once
-- whose orders or data it has changed: "7,42", or "all" where that is too many, for a payload holds
-- less than 8,000 bytes. What is said comes when the transaction commits, and only if it does;
-- transactions that have something to say commit one after another.

create function tell_dashboards(ids bigint[]) returns void language plpgsql as $$
begin
    if cardinality(ids) > 0 then
        perform pg_notify('curfew_dashboards',
            case when cardinality(ids) > 100 then 'all' else array_to_string(ids, ',') end);
    end if;
end
$$;

create function tell_orders_changed() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        perform tell_dashboards(array(select distinct user_id from new_rows limit 101));
    elsif tg_op = 'DELETE' then
        perform tell_dashboards(array(select distinct user_id from old_rows limit 101));
    else
        perform tell_dashboards(array(
            select user_id from new_rows union select user_id from old_rows limit 101));
    end if;
    return null;
end
$$;

create function tell_users_changed() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        perform tell_dashboards(array(select id from new_rows limit 101));
    elsif tg_op = 'DELETE' then
        perform tell_dashboards(array(select id from old_rows limit 101));
    else
        perform tell_dashboards(array(
            select id from new_rows union select id from old_rows limit 101));
    end if;
    return null;
end
$$;

create function tell_all_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('curfew_dashboards', 'all');
    return null;
end
$$;

create trigger orders_inserted after insert on orders referencing new table as new_rows
    for each statement execute function tell_orders_changed();
create trigger orders_updated after update on orders
    referencing old table as old_rows new table as new_rows
    for each statement execute function tell_orders_changed();
create trigger orders_deleted after delete on orders referencing old table as old_rows
    for each statement execute function tell_orders_changed();
create trigger orders_truncated after truncate on orders
    for each statement execute function tell_all_changed();

create trigger users_inserted after insert on users referencing new table as new_rows
    for each statement execute function tell_users_changed();
create trigger users_updated after update on users
    referencing old table as old_rows new table as new_rows
    for each statement execute function tell_users_changed();
create trigger users_deleted after delete on users referencing old table as old_rows
    for each statement execute function tell_users_changed();
create trigger users_truncated after truncate on users
    for each statement execute function tell_all_changed();

comment on column orders.version is 'Grows with every change.';
comment on table idempotency_keys is 'Answers to requests that may come again.';
