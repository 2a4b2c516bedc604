"""`onnxsub study NAME`: a group whose commands are imported when they are called."""

from __future__ import annotations

import importlib
from types import MappingProxyType

import click

from onnxsub.cli.suggest import SuggestingGroup

__all__ = ["STUDIES", "command"]

STUDIES = MappingProxyType(
    {
        "regimes": "Training regimes: accuracy, security over the radius, what holds for sure.",
        "finetune": "Training on adversarial examples, by who found them: frequency and severity before and after.",
        "importance": "A network and what importance scores leave of it: accuracy, exact adversarial examples of both.",
        "tradeoff": "Accuracy against robustness over a grid: trained, pruned and Bayesian networks.",
    }
)
"""Study -> its line in `onnxsub study --help`. Its command is `command` in `onnxsub.cli.study_<name>`."""


class _Studies(SuggestingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STUDIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in STUDIES:
            return None
        found = importlib.import_module(f"onnxsub.cli.study_{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(STUDIES.items()))


@click.group("study", cls=_Studies, epilog="Example: onnxsub study regimes --dataset fashion-mnist --run regimes")
def command() -> None:
    """Experiments over many networks, each one command that goes on where it was when it is run again.

    First use: onnxsub study regimes --help
    """
