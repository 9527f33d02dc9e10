-- Each image has as many neighbours as there can be, the nearest first, and is not its own.
with counted as (
    select
        id,
        count(*) as neighbours,
        max(rank) as last,
        bool_or(neighbour = id) as is_own
    from {{ ref('neighbours') }}
    group by id
),

steps as (
    select id, distance < lag(distance) over (partition by id order by rank) as falls
    from {{ ref('neighbours') }}
)

select i.id
from {{ source('vecsearch', 'images') }} as i
left join counted on counted.id = i.id
where
    coalesce(counted.neighbours, 0) <> least(
        {{ var('neighbours') }},
        (select count(*) - 1 from {{ source('vecsearch', 'images') }})
    )
    or counted.last <> counted.neighbours
    or counted.is_own
    or exists (select from steps where steps.id = i.id and steps.falls)
