"""The values of a decision of IAM: who asks, what for, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

#: Whether policies are enforced. With ``"templates"`` UpdateAutoScalingGroup also asks for the template's rights.
Enforcement = Literal["off", "on", "templates"]
ENFORCEMENTS: tuple[Enforcement, ...] = get_args(Enforcement)
#: A policy document, parsed.
Document = Mapping[str, Any]
#: Condition keys and their values. Names of keys are lower case: IAM does not distinguish case.
Context = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Principal:
    """The identity of a caller and its policies.

    Attributes
    ----------
    arn : str
        As in AWS's messages: a user, or an assumed role with its session.
    id : str
        ``aws:userid``: of a user its unique id, of a role the role's id and the session's name.
    policies : mapping of str to Document
        Its identity-based policies by name.
    bounds : tuple of Document
        A permissions boundary and a session policy: each has to allow a call too.
    name : str
        ``aws:username``; empty for a role.
    """

    arn: str
    id: str
    policies: Mapping[str, Document] = field(default_factory=dict)
    bounds: tuple[Document, ...] = ()
    name: str = ""

    @property
    def context(self) -> dict[str, tuple[str, ...]]:
        """The global condition keys that describe it."""
        named = {"aws:username": (self.name,)} if self.name else {}
        kind = "User" if ":user/" in self.arn else "AssumedRole"
        return {
            "aws:userid": (self.id,),
            "aws:principalarn": (principal_arn(self.arn),),
            "aws:principalaccount": (self.arn.split(":")[4],),
            "aws:principaltype": (kind,),
            **named,
        }


@dataclass(frozen=True)
class Check:
    """One question: whether an action is allowed on a resource, in a context.

    A call asks one or more of them, and each has to be allowed.

    Attributes
    ----------
    action : str
        As policies write it: ``"ecs:RunTask"``.
    resource : str
        An ARN, or ``"*"`` for an action without resources. What a call is about to create has ``*`` in place of an id.
    context : Context
        The condition keys of the call and the resource.
    opaque : str
        AWS's message if the check fails without naming the action, as it does for launch templates.
    """

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)
    opaque: str = ""


@dataclass(frozen=True)
class Decision:
    """IAM's answer.

    Attributes
    ----------
    allowed : bool
        The answer.
    by : tuple of str
        The statements that decided, as ``policy/Sid``.
    explicit : bool
        Whether a statement denies it, in contrast to none that allows it.
    """

    allowed: bool
    by: tuple[str, ...] = ()
    explicit: bool = False


def principal_arn(arn: str) -> str:
    """Return ``aws:PrincipalArn``: of an assumed role, the ARN of the role without its path.

    >>> principal_arn("arn:aws:sts::123456789012:assumed-role/starburst-scheduler/0a1b")
    'arn:aws:iam::123456789012:role/starburst-scheduler'
    """
    head, found, rest = arn.partition(":assumed-role/")
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}" if found else arn


def enforcement(word: str) -> Enforcement:
    """Return a word as an enforcement.

    Raises
    ------
    ValueError
        It is not one of them.
    """
    for known in ENFORCEMENTS:
        if word == known:
            return known
    raise ValueError(f"iam must be one of {', '.join(ENFORCEMENTS)}, not {word!r}")
