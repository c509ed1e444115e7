"""``python -m dualdb`` is the ``dualdb`` command."""

from .cli import main

if __name__ == "__main__":
    main()
