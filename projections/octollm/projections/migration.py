"""Schema migrations: numbered SQL files, applied once each, in order, under an advisory lock."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

_LOCK = 0x0C70_0001
"""Advisory lock: one process migrates, the others wait for it."""

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationRefused(RuntimeError):
    """The database was migrated by files that differ from ours."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its text, lower-case hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def packaged() -> list[Migration]:
    """The migrations of this version, in order; raises MigrationRefused where the numbers have a gap."""
    found = [
        Migration(int(match[1]), file.name, file.read_text(encoding="utf-8"))
        for file in (files("octollm.projections") / "migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationRefused(f"migrations must be numbered 1, 2, 3 …: {', '.join(m.name for m in found)}")
    return found


async def migrate(connection: asyncpg.Connection, migrations: Iterable[Migration] | None = None) -> list[str]:
    """Applies what is missing, each file in a transaction of its own; returns the names applied.

    Raises MigrationRefused when an applied file was edited since, or the database is ahead of this version.
    """
    wanted = packaged() if migrations is None else list(migrations)
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS projections")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS projections.migrations"
            " (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)"
        )
        rows = await connection.fetch("SELECT version, name, checksum FROM projections.migrations ORDER BY version")
        done = {row["version"]: row for row in rows}
        _check(wanted, done)
        applied = []
        for migration in wanted:
            if migration.version in done:
                continue
            async with connection.transaction():
                await connection.execute("SET LOCAL search_path = projections")
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO projections.migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
            applied.append(migration.name)
        return applied
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


def _check(wanted: list[Migration], done: dict[int, asyncpg.Record]) -> None:
    by_version = {migration.version: migration for migration in wanted}
    for version, row in done.items():
        ours = by_version.get(version)
        if ours is None:
            raise MigrationRefused(
                f"the database has migration {row['name']}, which this version does not know; run the newer version"
            )
        if ours.checksum != row["checksum"]:
            raise MigrationRefused(
                f"migration {ours.name} was edited after it was applied; restore the file and add a new one"
            )
