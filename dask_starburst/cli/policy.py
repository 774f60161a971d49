"""``starburst policy``: the IAM policies of administrators, users, builders of images, and roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dask_starburst.plan.requests.policy_formats import FORMATS, Format, of_people, of_roles

_F = Callable[..., Any]


def _options(command: _F) -> _F:
    """Add the options of every command."""
    form = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="json",
        show_default=True,
        help="The policy itself, or a template to deploy.",
    )
    partition = click.option(
        "--partition",
        type=click.Choice(["aws", "aws-us-gov", "aws-cn"]),
        default="aws",
        show_default=True,
        help="AWS's partition, as in ARNs.",
    )
    return form(partition(command))


@click.group()
def policy() -> None:
    """Print the IAM policies that administrators, users and roles need.

    No AWS call is made. The page "Set up an account" of the documentation explains them.
    """


@policy.command()
@_options
def admin(form: Format, partition: str) -> None:
    """Print the policy for setting an account up once: roles, log group, shared security group."""
    click.echo(of_people("admin", form, partition))


@policy.command()
@_options
def user(form: Format, partition: str) -> None:
    """Print the policy for launching clusters in an account that has been set up."""
    click.echo(of_people("user", form, partition))


@policy.command()
@_options
def images(form: Format, partition: str) -> None:
    """Print the policy for building the workers' images, which users need besides theirs to build their own."""
    click.echo(of_people("builder", form, partition))


@policy.command()
@_options
def roles(form: Format, partition: str) -> None:
    """Print the roles of instances and tasks, with their trust and their policies."""
    click.echo(of_roles(form, partition))
