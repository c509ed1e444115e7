"""``completion``: the script that completes the command in a shell."""

import click
from click.shell_completion import get_completion_class

from .base import command
from .root import root


@command(
    root,
    'eval "$(dualdb completion bash)"   # in ~/.bashrc\n'
    "dualdb completion fish > ~/.config/fish/completions/dualdb.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in a shell."""
    found = get_completion_class(shell)
    assert found is not None  # click has all three
    click.echo(found(root, {}, "dualdb", "_DUALDB_COMPLETE").source())
