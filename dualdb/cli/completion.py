"""``completion``: the script that completes the command in a shell."""

import click
from click.shell_completion import get_completion_class

from .base import State, command, pass_state
from .output import write_json
from .root import root


@command(
    root,
    'eval "$(dualdb completion bash)"   # in ~/.bashrc\n'
    "dualdb completion fish > ~/.config/fish/completions/dualdb.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_state
def completion(current: State, shell: str) -> None:
    """Print a script that completes commands and options in a shell."""
    found = get_completion_class(shell)
    assert found is not None  # click has all three
    script = found(root, {}, "dualdb", "_DUALDB_COMPLETE").source()
    if current.json:
        write_json({"shell": shell, "script": script})
    else:
        click.echo(script)
