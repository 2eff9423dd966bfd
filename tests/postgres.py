"""A PostgreSQL server of one's own: data folder, socket and processes are gone when it is stopped."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``; None where PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer:
    """A server that listens on a socket in a private folder only. Needs :func:`binaries`.

    Root may not run PostgreSQL: then it runs as the user ``postgres`` or, without that one, as ``nobody``.
    """

    def __init__(self, *, durable: bool = False) -> None:
        """With ``durable`` a commit waits for the disk, as it does outside of tests."""
        self._durable = durable
        found = binaries()
        assert found is not None, "PostgreSQL is not installed"
        self._binaries = found
        self.folder = Path(tempfile.mkdtemp(prefix="bilevel-pg-", dir="/tmp"))  # a socket's path must be short
        self._process: subprocess.Popen[bytes] | None = None
        # By setpriv and not by subprocess's own means, which run Python and gRPC's fork handlers in the child.
        self._as_user = ["setpriv", "--pdeathsig", "QUIT"]
        if os.geteuid() == 0:
            account = _unprivileged()
            self._as_user += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        command = [found / "initdb", "-D", self.folder / "data", "-U", "bilevel", "-A", "trust", "-E", "UTF8"]
        subprocess.run(
            [*self._as_user, *command, "--no-sync", "--no-instructions"], check=True, capture_output=True, cwd="/"
        )
        self.start()

    def start(self) -> None:
        """Start and wait until it takes connections."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "max_connections": 200,
            "fsync": "on" if self._durable else "off",  # the machine does not lose power in a test
            "shared_buffers": "32MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._binaries / "postgres", "-D", self.folder / "data", *options],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        while True:
            try:
                psycopg.connect(self._dsn("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.05)
                    raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text()[-2000:]}") from None
            else:
                return

    def halt(self) -> None:
        """End all its processes at once, as a crash would; the data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def stop(self) -> None:
        """End it and remove its folder."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://bilevel@/{database}?host={self.folder}"

    @contextlib.contextmanager
    def database(self, options: str = "STRATEGY file_copy") -> Iterator[str]:
        """The URL of a new database, made with SQL ``options``, for the length of the block."""
        name = f"t{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} {options}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _dsn(self, database: str) -> str:
        return f"host={self.folder} dbname={database} user=bilevel"


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
