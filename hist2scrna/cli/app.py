"""The application: its commands, its version, how much it says."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from hist2scrna.cli.adapt import adapt
from hist2scrna.cli.benchmark import benchmark
from hist2scrna.cli.data import convert, info, simulate
from hist2scrna.cli.demo import demo
from hist2scrna.cli.errors import speaking_shell
from hist2scrna.cli.evaluate import evaluate
from hist2scrna.cli.extract_features import extract_features
from hist2scrna.cli.fit import fit
from hist2scrna.cli.pool import pool
from hist2scrna.cli.predict import predict
from hist2scrna.cli.report import report
from hist2scrna.verbosity import settings

app = typer.Typer(
    help="Gene expression, as counts, from H&E histology.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
for command in (
    simulate,
    fit,
    adapt,
    predict,
    evaluate,
    benchmark,
    report,
    extract_features,
    pool,
    convert,
    info,
    demo,
):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from hist2scrna import __version__

        typer.echo(f"hist2scrna {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say what is read of each section.")] = False,
) -> None:
    """Gene expression, as counts, from H&E histology."""
    if isinstance(context.command, TyperGroup) and (
        command := context.command.commands.get(context.invoked_subcommand or "")
    ):
        context.with_resource(speaking_shell(command))
    if verbose:
        settings.verbosity = "hint"
