"""The migration runner."""

import asyncio

import asyncpg
import pytest

from octollm.events.config import PostgresSettings
from octollm.projections.database import connect
from octollm.projections.migration import Migration, MigrationRefused, migrate, packaged

ONE = Migration(1, "0001_one.sql", "CREATE TABLE one (n INTEGER)")
TWO = Migration(2, "0002_two.sql", "CREATE TABLE two (n INTEGER); INSERT INTO two VALUES (2)")


async def test_each_is_applied_once_and_in_order(postgres: PostgresSettings) -> None:
    connection = await connect(postgres, 30)
    assert await migrate(connection, [ONE]) == ["0001_one.sql"]
    assert await migrate(connection, [ONE, TWO]) == ["0002_two.sql"]
    assert await migrate(connection, [ONE, TWO]) == []
    assert await connection.fetchval("SELECT n FROM two") == 2
    await connection.close()


async def test_an_edited_one_is_refused(postgres: PostgresSettings) -> None:
    connection = await connect(postgres, 30)
    await migrate(connection, [ONE])
    edited = Migration(1, "0001_one.sql", "CREATE TABLE one (n BIGINT)")
    with pytest.raises(MigrationRefused, match=r"0001_one\.sql was edited"):
        await migrate(connection, [edited, TWO])
    assert await connection.fetchval("SELECT to_regclass('projections.two')") is None
    await connection.close()


async def test_a_newer_database_is_refused(postgres: PostgresSettings) -> None:
    connection = await connect(postgres, 30)
    await migrate(connection, [ONE, TWO])
    with pytest.raises(MigrationRefused, match=r"0002_two\.sql"):
        await migrate(connection, [ONE])
    await connection.close()


async def test_a_failing_one_leaves_nothing(postgres: PostgresSettings) -> None:
    connection = await connect(postgres, 30)
    broken = Migration(2, "0002_two.sql", "CREATE TABLE two (n INTEGER); CREATE TABLE one (n INTEGER)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(connection, [ONE, broken])
    assert await connection.fetchval("SELECT to_regclass('projections.two')") is None
    assert await migrate(connection, [ONE, TWO]) == ["0002_two.sql"]
    await connection.close()


async def test_several_at_once_apply_each_once(postgres: PostgresSettings) -> None:
    connections = [await connect(postgres, 30) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(connection) for connection in connections))
    assert sorted(applied, key=len) == [[], [], [], [migration.name for migration in packaged()]]
    for connection in connections:
        await connection.close()
