-- SPDX-License-Identifier: MIT
-- 10,000 users and 200,000 orders for demonstration and test: the same rows on every machine.
--
-- Everything follows from the row's number by integer arithmetic: no random(), no now(). What
-- looks random is Knuth's multiplicative hash, (n * 2654435761) mod 2^32. The data is shaped so
-- that sloppy code shows:
--   - ids do not follow created_at, so `order by id` is not `newest first`;
--   - some created_at are equal, also among one user's orders, so `id desc` has to decide;
--   - from no orders (a user in ten) to more than a thousand;
--   - names outside of ASCII; times with and without fractions of a second; totals of zero.
--
-- `sql/cluster.sh load` applies it when there are no users.

begin;

insert into users (id, email, name, created_at)
with numbered as (
    select n, (n * 2654435761) % 4294967296 as hash
    from generate_series(1::bigint, 10000) as n
), named as (
    select n, hash,
        -- 60 first and 64 last names, drawn independently of each other.
        (array['Aaliyah', 'Åsa', 'Ada', 'Adaeze', 'Aiko', 'Alejandro', 'Amélie', 'Ana', 'Anders',
               'Andrzej', 'Björn', 'Carlos', 'Chiara', 'Chloé', 'Dmitri', 'Elif', 'Emma', 'Esra',
               'Fatima', 'Felix', 'François', 'Freja', 'Giulia', 'Grace', 'Hannah', 'Hiroshi',
               'Ibrahim', 'Inés', 'Ingrid', 'Ivan', 'Jan', 'João', 'José', 'Kwame', 'Lars', 'Leila',
               'Liam', 'Lin', 'Lucía', 'Maja', 'Maria', 'Mateo', 'Mei', 'Mohammed', 'Nadia', 'Niamh',
               'Noah', 'Olga', 'Priya', 'Rahul', 'Renée', 'Sana', 'Sofía', 'Søren', 'Tariq',
               'Tomáš', 'Wei', 'Yuki', 'Zoë', 'Zsófia'])[1 + hash / 65536 % 60] as first_name,
        (array['Almeida', 'Andersson', 'Bakker', 'Balogun', 'Bauer', 'Becker', 'Bianchi', 'Brown',
               'Castro', 'Chen', 'Cohen', 'Costa', 'Demir', 'Diallo', 'Dubois', 'Eriksson',
               'Fernández', 'Fischer', 'Garcia', 'González', 'Haddad', 'Hansen', 'Horváth', 'Hughes',
               'Ibrahim', 'Ivanova', 'Jensen', 'Johnson', 'Kaya', 'Khan', 'Kim', 'Kovács',
               'Kowalska', 'Kumar', 'Larsen', 'Lee', 'Li', 'Lindström', 'Martin', 'Mensah', 'Meyer',
               'Moreau', 'Müller', 'Nakamura', 'Nguyen', 'Nowak', 'Novák', 'O''Brien', 'Okafor',
               'Pérez', 'Petrov', 'Rossi', 'Sato', 'Schäfer', 'Silva', 'Singh', 'Smith', 'Suzuki',
               'Tanaka', 'Van Dijk', 'Virtanen', 'Wang', 'Weiß', 'Yılmaz'])[1 + n * 37 / 60 % 64]
            as last_name
    from numbered
)
select n,
    translate(lower(first_name || '.' || last_name), 'åáäãéëèíöøóüúçšßı'' ', 'aaaaeeeiooouucssi')
        || '.' || n || case n % 3 when 0 then '@example.org' else '@example.com' end,
    first_name || ' ' || last_name,
    -- About one in three and a half hours since 2020, up to a day late; each 50th has the time of
    -- the one before.
    timestamptz '2020-01-01 00:00:00+00'
        + (n - (n % 50 = 0)::int) * interval '3 hours 30 minutes'
        + case when n % 50 in (0, 49) then interval '0' else hash % 86400 * interval '1 second' end
from named;

insert into orders (id, user_id, status, total_cents, created_at)
with numbered as (
    -- Each 16th order belongs to the checkout of the one before: same user, same instant.
    select n, n - (n % 16 = 0)::int as checkout
    from generate_series(1::bigint, 200000) as n
), hashed as (
    select n, checkout,
        (checkout * 2654435761) % 4294967296 as hash,
        (n * 2246822519) % 4294967296 as own_hash
    from numbered
)
select n,
    -- The square of an even draw gives the first ranks most of the orders; 9,000 ranks for 10,000
    -- users leave a tenth without any. 7919 has no common factor with 10000, so that the product
    -- spreads the ranks over the ids without a collision.
    1 + ((hash / 65536) * (hash / 65536) * 9000 / 4294967296) * 7919 % 10000,
    -- What is recent is still on its way.
    case
        when own_hash % 100 < 6 then 'cancelled'
        when n > 198000 and own_hash % 100 < 70 then 'pending'
        when n > 190000 then 'paid'
        when own_hash % 100 < 8 then 'paid'
        else 'shipped'
    end,
    -- Mostly small, seldom large, each thousandth a gift: 0 to about 2,500.00.
    case n % 1000 when 0 then 0 else 199 + (own_hash / 65536) * (own_hash / 65536) / 17179 end,
    -- One in five minutes and a quarter for two years from 2024, up to two hours late; of four,
    -- three have microseconds.
    timestamptz '2024-01-01 00:00:00+00'
        + checkout * interval '315 seconds'
        + hash % 7200 * interval '1 second'
        + case checkout % 4 when 0 then 0 else hash % 1000000 end * interval '1 microsecond'
from hashed;

select setval(pg_get_serial_sequence('users', 'id'), (select max(id) from users)),
       setval(pg_get_serial_sequence('orders', 'id'), (select max(id) from orders));

commit;

-- Not in the transaction, where VACUUM is not allowed: statistics for the planner, and the
-- visibility map, so that the first queries are as fast as all later ones.
vacuum (analyze) users, orders;
