-- Ranks have no gaps, distances do not fall, and no image is its own neighbour.
with steps as (
    select
        id,
        rank,
        neighbour,
        distance < lag(distance) over (partition by id order by rank) as falls,
        row_number() over (partition by id order by rank) as place
    from {{ ref('neighbours') }}
)

select * from steps
where falls or place <> rank or neighbour = id
