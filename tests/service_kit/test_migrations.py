"""Each service's tables come from its revisions, up and down, on both databases, from whatever a database holds."""

import asyncio
import importlib

import pytest
from sqlalchemy import inspect, select, text

from service_kit.database import Database
from service_kit.engines import Transaction
from service_kit.errors import ServiceError
from service_kit.migrations import Schema


@pytest.fixture(params=["inner_service", "outer_service"])
def schema(request: pytest.FixtureRequest) -> Schema:
    return importlib.import_module(f"{request.param}.tables").SCHEMA


async def tables(connection: Transaction) -> set[str]:
    return set(await connection.run_sync(lambda c: inspect(c).get_table_names()))


async def test_the_revisions_lead_to_the_tables(schema: Schema, database_url: str) -> None:
    database = await Database.open(database_url, schema)
    async with database.transaction() as connection:
        assert await connection.run_sync(schema.difference) == []
    await database.close()


async def test_services_that_start_at_one_moment_on_an_empty_database_make_its_tables_once(
    schema: Schema, database_url: str
) -> None:
    opened = await asyncio.gather(*(Database.open(database_url, schema) for _ in range(4)))
    for database in opened:
        async with database.transaction() as connection:
            assert await connection.run_sync(schema.difference) == []
        await database.close()


async def test_every_revision_goes_down_and_up_again(schema: Schema, database_url: str) -> None:
    database = await Database.open(database_url, schema)
    for revision in schema.revisions():
        async with database.transaction() as connection:
            assert await connection.run_sync(schema.current) == revision.revision
            await connection.run_sync(schema.downgrade, revision.down_revision or "base")
    async with database.transaction() as connection:
        assert await tables(connection) == {"alembic_version"}
    for revision in reversed(schema.revisions()):
        async with database.transaction() as connection:
            await connection.run_sync(schema.upgrade, revision.revision)
            assert await connection.run_sync(schema.current) == revision.revision
    async with database.transaction() as connection:
        assert await connection.run_sync(schema.difference) == []
    await database.close()


def test_revisions_follow_each_other_in_one_line(schema: Schema) -> None:
    assert len(schema.heads()) == 1
    assert schema.revisions()[-1].revision == schema.first
    ids = [script.revision for script in reversed(schema.revisions())]
    assert [id_.split("_")[:2] for id_ in ids] == [[schema.name, f"{n:04d}"] for n in range(1, len(ids) + 1)]


async def test_a_database_from_before_the_revisions_keeps_its_rows(schema: Schema, database_url: str) -> None:
    database = await Database.open(database_url)
    async with database.transaction() as connection:
        await connection.run_sync(schema.upgrade, schema.first)
        await connection.execute(text("DROP TABLE alembic_version"))
        await connection.execute(text("INSERT INTO event_streams (stream, last_sequence) VALUES ('runs/old', 7)"))
    await database.close()
    database = await Database.open(database_url, schema)
    async with database.transaction() as connection:
        assert await connection.run_sync(schema.current) == schema.heads()[0]
        streams = schema.metadata[0].tables["event_streams"]
        assert (await connection.execute(select(streams))).all() == [("runs/old", 7)]
        assert await connection.run_sync(schema.difference) == []
    await database.close()


async def test_a_database_newer_than_the_code_is_refused_untouched(schema: Schema, database_url: str) -> None:
    database = await Database.open(database_url, schema)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999_from_the_future'"))
    await database.close()
    with pytest.raises(ServiceError, match=r"cannot open .*'9999_from_the_future', which this version does not know"):
        await Database.open(database_url, schema)
    database = await Database.open(database_url)
    async with database.reading() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == (
            "9999_from_the_future"
        )
    await database.close()


async def test_a_revision_that_fails_leaves_the_database_as_it_was(database_url: str, tmp_path) -> None:
    (tmp_path / "probe_0001_first.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = 'probe_0001_first', None\n"
        "def upgrade():\n    op.create_table('one', sa.Column('id', sa.Integer, primary_key=True))\n    1 / 0\n"
    )
    with pytest.raises(ZeroDivisionError):
        await Database.open(database_url, Schema("probe", tmp_path, ()))
    database = await Database.open(database_url)
    async with database.reading() as connection:
        assert not await tables(connection)
    await database.close()


async def test_another_services_database_is_refused(database_url: str) -> None:
    inner, outer = (importlib.import_module(f"{name}_service.tables").SCHEMA for name in ("inner", "outer"))
    await (await Database.open(database_url, outer)).close()
    with pytest.raises(ServiceError, match="database of its own"):
        await Database.open(database_url, inner)
