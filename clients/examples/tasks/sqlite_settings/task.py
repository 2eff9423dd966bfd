"""Which SQLite settings take a write load fastest without giving durability away, measured on a real file.

.venv/bin/python clients/examples/tasks/sqlite_settings/task.py --listen 127.0.0.1:7500
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from clients.task_sdk import Boolean, Choice, Context, Integer, Result, task

ORDERS = 10_000
"""Orders of a full-budget evaluation."""
SHOPS = 50


@task(
    name="sqlite-settings",
    metric="us_per_order",
    unit="µs",
    goal="minimize",
    space={
        "journal_mode": Choice(["DELETE", "TRUNCATE", "PERSIST", "WAL"], doc="How a transaction is made atomic."),
        "synchronous": Choice(["FULL", "NORMAL", "EXTRA"], doc="How often SQLite waits for the disk."),
        "page_bytes": Choice([4096, 1024, 2048, 8192, 16384, 32768], doc="Size of a database page."),
        "cache_kib": Integer(64, 65536, log=True, default=2048, doc="Memory of the page cache."),
        "wal_autocheckpoint": Integer(10, 10_000, log=True, default=1000, doc="Pages of the log before a checkpoint."),
        "mmap_mib": Integer(0, 256, step=16, default=0, doc="How much of the file is read through mmap."),
        "temp_in_memory": Boolean(doc="Whether temporary tables stay in memory."),
        "orders_per_commit": Integer(1, 256, log=True, default=32, locked=True, doc="A crash loses so many orders."),
        "without_rowid": Boolean(doc="Whether the balance table is stored in its primary key."),
    },
    budget=8.0,
    hard_limit=120.0,
    identity={"sqlite": sqlite3.sqlite_version},
)
def sqlite_settings(
    journal_mode: str,
    synchronous: str,
    page_bytes: int,
    cache_kib: int,
    wal_autocheckpoint: int,
    mmap_mib: int,
    temp_in_memory: bool,
    orders_per_commit: int,
    without_rowid: bool,
    *,
    context: Context,
) -> Result:
    """Time that an order takes in an SQLite database, by its settings.

    Each order inserts a row into an indexed table, updates a balance and now and then reads the last orders of a shop.
    The database is a file. Settings that can lose committed data or corrupt the file at a power failure are not in the
    space, and how many orders share a transaction is locked: a search takes every loophole. Afterwards the database
    must pass its own integrity check and hold every order.
    """
    orders = max(100, round(ORDERS * context.budget_fraction))
    rng = random.Random(context.seed)
    plan = [(rng.randrange(SHOPS), rng.randrange(1, 10_000), rng.random() < 0.05) for _ in range(orders)]
    with closing(sqlite3.connect(context.folder / "shop.db", isolation_level=None)) as database:
        # The page size counts only before the first page is written, the journal mode only after that is set.
        for setting in (
            f"page_size={page_bytes}",
            f"journal_mode={journal_mode}",
            f"synchronous={synchronous}",
            f"cache_size=-{cache_kib}",
            f"wal_autocheckpoint={wal_autocheckpoint}",
            f"mmap_size={mmap_mib * 2**20}",
            f"temp_store={'MEMORY' if temp_in_memory else 'FILE'}",
        ):
            database.execute(f"PRAGMA {setting}")
        create(database, without_rowid)
        began = time.perf_counter()
        for first in range(0, orders, orders_per_commit):
            database.execute("BEGIN IMMEDIATE")
            for number, (shop, amount, look) in enumerate(plan[first : first + orders_per_commit], first):
                take(database, number, shop, amount, look)
            database.execute("COMMIT")
            done = min(orders, first + orders_per_commit)
            context.report(done / orders, step=done, phase="ordering")
        seconds = time.perf_counter() - began
        verify(database, orders, sum(amount for _, amount, _ in plan))
    return Result(1e6 * seconds / orders, {"orders": orders, "file_mib": size_mib(context.folder)})


@sqlite_settings.check
def durable(journal_mode: str, synchronous: str) -> bool:
    """synchronous=NORMAL is safe against a power failure only with journal_mode=WAL"""
    return synchronous != "NORMAL" or journal_mode == "WAL"


def create(database: sqlite3.Connection, without_rowid: bool) -> None:
    """The two tables of the shop."""
    storage = "WITHOUT ROWID" if without_rowid else ""
    database.executescript(
        f"""
        CREATE TABLE orders (number INTEGER PRIMARY KEY, shop INTEGER NOT NULL, amount INTEGER NOT NULL, note TEXT);
        CREATE INDEX orders_of_shop ON orders (shop, amount);
        CREATE TABLE balance (shop INTEGER PRIMARY KEY, cents INTEGER NOT NULL) {storage};
        """
    )
    database.executemany("INSERT INTO balance VALUES (?, 0)", [(shop,) for shop in range(SHOPS)])


def take(database: sqlite3.Connection, number: int, shop: int, amount: int, look: bool) -> None:
    """One order."""
    database.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", (number, shop, amount, f"order {number:>40}"))
    database.execute("UPDATE balance SET cents = cents + ? WHERE shop = ?", (amount, shop))
    if look:
        query = "SELECT avg(amount) FROM (SELECT amount FROM orders WHERE shop = ? ORDER BY amount DESC LIMIT 20)"
        database.execute(query, (shop,)).fetchone()


def verify(database: sqlite3.Connection, orders: int, cents: int) -> None:
    """Raises RuntimeError when the database is damaged or has lost something."""
    (health,) = database.execute("PRAGMA integrity_check").fetchone()
    (count,) = database.execute("SELECT count(*) FROM orders").fetchone()
    (balance,) = database.execute("SELECT sum(cents) FROM balance").fetchone()
    if (health, count, balance) != ("ok", orders, cents):
        raise RuntimeError(f"integrity check says {health!r}; {count} of {orders} orders, {balance} of {cents} cents")


def size_mib(folder: Path) -> float:
    """Size of the database with its journal."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 2**20


if __name__ == "__main__":
    sqlite_settings.serve()
