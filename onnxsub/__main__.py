"""`python -m onnxsub`, and the script `onnxsub`."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The way in: takes the signals before anything that takes time is imported."""
    from onnxsub.cli.signals import install
    from onnxsub.isolation import leave_working_folder

    install()
    leave_working_folder()
    from onnxsub.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
