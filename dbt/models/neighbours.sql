{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='id',
        on_schema_change='fail',
        indexes=[
            {'columns': ['id', 'rank'], 'unique': true},
            {'columns': ['neighbour']},
        ],
        post_hook="delete from {{ this }} as gone where not exists (
            select from {{ source('vecsearch', 'images') }} as i where i.id = gone.id)",
    )
}}

{%- set images = source('vecsearch', 'images') %}
{%- set changes = source('vecsearch', 'changes') %}
{%- set k = var('neighbours') | int %}

with feed as (
    select min(position) as oldest, max(position) as newest from {{ changes }}
),

{% if is_incremental() -%}
past as (
    select max(position) as position, count(distinct rank) as neighbours from {{ this }}
),

-- The rows may be kept if the feed still has all changes since, and none of them is a reset.
follows as (
    select
        past.position >= feed.oldest
        and past.neighbours = {{ k }}
        and not exists (
            select from {{ changes }} as c
            where c.position > past.position and c.kind = 'reset'
        ) as holds
    from past, feed
),

changed as (
    select distinct c.id
    from {{ changes }} as c, past
    where c.position > past.position and c.id is not null
),

farthest as (
    select id, max(distance) as distance, count(*) as neighbours from {{ this }} group by id
),

stale as (
    select id from {{ images }} where (select holds from follows) is not true
    union
    select id from changed
    union
    select n.id from {{ this }} as n where n.neighbour in (select id from changed)
    union
    -- A new or changed image is as near as the farthest neighbour, or there are too few.
    select i.id
    from {{ images }} as i
    left join farthest as f on f.id = i.id
    where (select count(*) from changed) > 0 and (
        coalesce(f.neighbours, 0) < {{ k }}
        or exists (
            select from {{ images }} as new
            where new.id in (select id from changed)
            and vecsearch.embedding_distance(new.embedding, i.embedding) <= f.distance
        )
    )
),
{%- else -%}
past as (
    select cast(null as bigint) as position
),

stale as (
    select id from {{ images }}
),
{%- endif %}

ranked as (
    select
        i.id,
        row_number() over (partition by i.id order by n.distance, n.id) as rank,
        n.id as neighbour,
        n.distance
    from {{ images }} as i
    cross join lateral (
        select o.id, vecsearch.embedding_distance(o.embedding, i.embedding) as distance
        from {{ images }} as o
        where o.id <> i.id
        order by distance, o.id
        limit {{ k }}
    ) as n
    where i.id in (select id from stale)
)

select
    ranked.id,
    cast(ranked.rank as smallint) as rank,
    ranked.neighbour,
    ranked.distance,
    coalesce(greatest(past.position, feed.newest), 0) as position
from ranked, past, feed
