"""What Alembic runs for every command; :class:`service_kit.migrations.Schema` says on what."""

from alembic import context

_given = context.config.attributes

context.configure(
    connection=_given["connection"],
    target_metadata=_given["metadata"],
    render_as_batch=True,  # SQLite changes a table by writing it anew
    compare_server_default=True,
    render_item=_given["render_item"],
)
context.run_migrations()
