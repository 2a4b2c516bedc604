"""`onnxsub demo`."""

from __future__ import annotations

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, limit_threads, output_options
from onnxsub.cli.output import Output
from onnxsub.errors import InputError

__all__ = ["command"]


@click.command("demo", cls=Command, epilog="Example: onnxsub demo")
@click.option("-o", "--output", default="onnxsub-demo", show_default=True, metavar="DIR", help="Folder of the substitute.")
@click.option("--threads", type=int, metavar="N", help="[default: all cores]")
@output_options
def command(output: str, threads: int | None, out: Output) -> int:
    """The main job on a network and an image that come with the package: attack, substitute, distance, and what it proves."""
    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads} is not possible; give 1 or more, or leave it out for all cores")
    from onnxsub.bundled.demo import demo

    limit_threads(threads)
    with out.progress() as report:
        result = demo(output, threads=threads, progress=report)
    if out.json:
        out.result(result, [])
    else:
        out.text(result.story())
    return Exit.DONE
