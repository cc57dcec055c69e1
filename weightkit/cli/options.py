"""Options that several verbs share."""

from __future__ import annotations

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON Report, on failure too.")
config_path = click.option(
    "--config_path", "--config", type=click.Path(), metavar="F", help="A HIL-SERL style train_config.json."
)
set_values = click.option("--set", "set_values", multiple=True, metavar="K=V", help="Set a configuration key.")
adapt = click.option(
    "--adapt",
    multiple=True,
    metavar="PATTERN=ADAPTER",
    help="Reconcile target tensors that match, e.g. '*=inflate:newest'.",
)
drop = click.option("--drop", multiple=True, metavar="PATTERN", help="Leave out source tensors that match.")
allow_missing = click.option(
    "--allow-missing", multiple=True, metavar="PATTERN", help="Let target tensors that match go without a source."
)
force = click.option("--force", is_flag=True, help="Replace an existing output.")
arch = click.option("--arch", metavar="NAME", help="The architecture, where no configuration names it.")
policy = click.option(
    "--policy", metavar="PKG.MOD:FACTORY", help="Your own policy: factory() -> (policy, act, probes). Runs your code."
)
