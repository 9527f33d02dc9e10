"""asyncpg, with a cursor; every statement is a prepared one."""

import asyncio

import asyncpg
from said import ASKED, PAGE, URL, rows, types, version


async def main() -> None:
    """Ask the questions."""
    version(asyncpg.__version__)
    connection = await asyncpg.connect(URL)
    prepared = await connection.prepare(ASKED["types"])
    types({column.name: column.type.name for column in prepared.get_attributes()})
    for question in ("nearest", "hundred", "filter"):
        rows(question, [row[0] for row in await connection.fetch(ASKED[question])])
    async with connection.transaction():
        cursor = connection.cursor(ASKED["all"], prefetch=PAGE)
        rows("all", [row[0] async for row in cursor])
    await connection.close()


asyncio.run(main())
