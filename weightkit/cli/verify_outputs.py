"""``weightkit verify-outputs``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.core.report import Report


@click.command("verify-outputs", short_help="do two policies do the same?")
@click.argument("a", type=click.Path())
@click.option("--against", "b", metavar="B", type=click.Path(), required=True, help="A checkpoint, or recordings.")
@click.option("--probes", default="2", show_default=True, help="Observations of each kind, or an .npz file of them.")
@click.option("--atol", default=1e-5, show_default=True, help="Largest absolute difference, times the largest output.")
@options.set_values
@options.limits
@options.as_json
def command(
    a: str,
    b: str,
    probes: str,
    atol: float,
    set_values: tuple[str, ...],
    limit: tuple[str, ...],
    max_bytes: str | None,
    as_json: bool,
) -> None:
    """Compare the actions and Q values of the policies A and B on the same observations.

    B may be an .npz of what other code was recorded to do: observation.* with action. Two controls, fresh weights and
    a permuted layer, show that a difference would be seen. Exit 0 where the outputs are equal, else 1.
    """
    from weightkit.reporting.outputs import outputs_text
    from weightkit.verbs.configure import parse_settings
    from weightkit.verbs.verify_outputs import verify_outputs

    def make() -> Report:
        return verify_outputs(
            a,
            b,
            probes=int(probes) if probes.isdigit() else probes,
            atol=atol,
            set=parse_settings(set_values),
            limits=options.parse_limits(limit, max_bytes),
        )

    emit("verify-outputs", as_json, make, outputs_text)
