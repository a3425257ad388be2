"""``tl-dagster``: what Dagster's own command line does not do. Each other module here is a command."""

import os
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click

from tl_dagster.runtime.errors import InputError

__all__ = ["main"]

HELPERS = {"main", "pipelines", "signals", "tables"}


class Commands(click.Group):
    """The group of commands: each module of this package, but for the helpers, holds one as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, which are those of their modules."""
        return sorted({module.name for module in iter_modules([str(Path(__file__).parent)])} - HELPERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; its module is imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"tl_dagster.cli.{cmd_name}").command
        return command


@click.group(cls=Commands, help="Transfer learning on Dagster.")
def group() -> None:
    """Set the instance that all commands use."""
    _default_home()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 1 and one clear line when something cannot be used.

    Args:
        arguments: the process's own when None.
    """
    try:
        group.main(arguments, prog_name="tl-dagster", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except InputError as error:
        sys.exit(f"tl-dagster: {error}")


def _default_home() -> None:
    """Without DAGSTER_HOME, use the instance and store of `make demo` and `make ui`: .dagster_home in the project."""
    from tl_dagster.graph.root import find_root

    if "DAGSTER_HOME" in os.environ or (root := find_root()) is None:
        return
    home = root / ".dagster_home"
    home.mkdir(exist_ok=True)
    if (root / "dagster.yaml").exists() and not (home / "dagster.yaml").exists():
        shutil.copyfile(root / "dagster.yaml", home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
