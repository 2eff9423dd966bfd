"""``python -m service_kit.migrations MODULE MESSAGE``: write the next revision of the schema in MODULE."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile

from service_kit.database import Database
from service_kit.migrations import Schema


async def _main(module: str, message: str) -> None:
    schema: Schema = importlib.import_module(module).SCHEMA
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(f"sqlite:///{folder}/schema.db", schema)
        try:
            async with database.transaction() as connection:
                print(await connection.run_sync(schema.revise, message))
        finally:
            await database.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].strip():
        sys.exit('usage: make revision SERVICE=inner|outer MESSAGE="what changes"')
    asyncio.run(_main(*sys.argv[1:]))
