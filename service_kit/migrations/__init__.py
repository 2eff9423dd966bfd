"""A service's tables over time: one folder of Alembic revisions for each service, applied when its database is opened.

A revision is never edited once it has been released. ``make revision SERVICE=inner MESSAGE="what changes"`` writes the
next one from the difference between the revisions and ``tables.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, MetaData, TypeDecorator, inspect

from service_kit.errors import ServiceError

log = structlog.get_logger("service_kit.migrations")


class WrongRevision(ServiceError):
    """The database is at a revision at which this code cannot use it."""


def _unknown(revision: str) -> WrongRevision:
    return WrongRevision(
        f"its tables are at revision {revision!r}, which this version does not know",
        hint="A newer version wrote it: use that version or one after it. Or it is the other service's database: "
        "give each service a database of its own with --database or BILEVEL_DATABASE.",
    )


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one service and the revisions that lead to them."""

    name: str
    """Begins the id of every revision, so that one service's database is not taken for another's."""
    versions: Path
    """Folder of the revisions."""
    metadata: tuple[MetaData, ...]
    """What the newest revision must lead to."""

    @property
    def first(self) -> str:
        """Id of the first revision: what a database holds that was written before there were revisions."""
        return f"{self.name}_0001_first"

    def upgrade(self, connection: Connection, target: str = "head") -> None:
        """Bring the database to revision ``target`` in the connection's transaction; nothing where it is there.

        Raises :class:`WrongRevision` for a database that newer code or another service wrote.
        """
        config, current = self._config(connection), self.current(connection)
        if current is None and self._written_before_revisions(connection):
            command.stamp(config, self.first)
        if current is None or current not in self.heads():
            log.info("bringing the tables to another revision", schema=self.name, at=current, to=target)
            command.upgrade(config, target)

    def require_newest(self, connection: Connection) -> None:
        """Raises :class:`WrongRevision` unless the database is at the newest revision."""
        current = self.current(connection)
        if current not in self.heads():
            raise WrongRevision(
                f"its tables are at revision {current!r}, the newest is {self.heads()[0]!r}",
                hint="Start the service on it once, which brings the tables along.",
            )

    def downgrade(self, connection: Connection, target: str) -> None:
        """Take revisions back down to ``target``; ``base`` leaves no table."""
        command.downgrade(self._config(connection), target)

    def current(self, connection: Connection) -> str | None:
        """The revision of the database; None for one without. Raises :class:`WrongRevision`."""
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is not None and revision not in {script.revision for script in self.revisions()}:
            raise _unknown(revision)
        return revision

    def heads(self) -> Sequence[str]:
        """The newest revisions: one, unless two were written side by side."""
        return self._scripts().get_heads()

    def revisions(self) -> list[Script]:
        """All revisions, newest first."""
        return list(self._scripts().walk_revisions())

    def difference(self, connection: Connection) -> list[Any]:
        """What a revision written now would have to change; empty when the revisions lead to the tables."""
        from alembic.autogenerate import compare_metadata

        options = {"compare_server_default": True, "include_name": _ours}
        context = MigrationContext.configure(connection, opts=options)
        found: list[Any] = compare_metadata(context, list(self.metadata))  # type: ignore[arg-type]
        return found

    def revise(self, connection: Connection, message: str) -> Path:
        """Write the next revision from :meth:`difference`; the connection's database is at the newest one."""
        number = len(self.revisions()) + 1
        slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
        revision = f"{self.name}_{number:04d}_{slug}"[:32].rstrip("_")  # as long as Alembic's own column
        written = command.revision(self._config(connection), message, autogenerate=True, rev_id=revision)
        assert isinstance(written, Script)
        return Path(written.path)

    def _written_before_revisions(self, connection: Connection) -> bool:
        expected = {table.name for metadata in self.metadata for table in metadata.sorted_tables}
        return bool(expected & set(inspect(connection).get_table_names()))

    def _config(self, connection: Connection | None = None) -> Config:
        given = {"connection": connection, "metadata": list(self.metadata), "render_item": _render_item}
        config = Config(attributes=given)
        config.set_main_option("script_location", str(Path(__file__).parent))
        config.set_main_option("version_locations", str(self.versions))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("file_template", "%%(rev)s")
        return config

    def _scripts(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(self._config())


def _render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """How a column type of ours is written into a revision: as the plain type that it is in the database."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


def _ours(name: str | None, kind: str, _parents: Any) -> bool:
    return not (kind == "table" and name == "alembic_version")
