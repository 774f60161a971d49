"""A right: actions, the resources that they are allowed on, and the conditions. The table of all is `rights_table`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: Prefix of the name of every resource in an account.
NAMESPACE = "starburst"
#: The tag of every resource created by this package; its value is the pool or the namespace.
MANAGED_TAG = "starburst:pool"
PARAMETER_ROOT = f"/{NAMESPACE}/"

#: Who holds a right: people (`admin` sets an account up, once; `user` launches clusters; `builder` makes the workers'
#: images), or one of the roles.
Holder = Literal["admin", "user", "builder", "instance", "execution", "scheduler"]
PEOPLE: tuple[Holder, ...] = ("admin", "user")
Condition = Mapping[str, Mapping[str, Any]]

#: The account's identifier in the table, until a document is made.
_ACCOUNT, _PARTITION = "<account>", "<partition>"


def arn(service: str, resource: str, *, account: str = _ACCOUNT, region: str = "*") -> str:
    """Return an ARN for the table, with any region, and without account and partition until a document is made."""
    return f"arn:{_PARTITION}:{service}:{region}:{account}:{resource}"


@dataclass(frozen=True, slots=True)
class Right:
    """A row of the table: one statement of the policies of its holders."""

    sid: str
    holders: tuple[Holder, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    conditions: Condition = field(default_factory=dict)

    def statement(self, account: str = "*", partition: str = "aws") -> dict[str, Any]:
        """Return the statement of a policy.

        Parameters
        ----------
        account : str
            The number of the account. ``*`` allows nothing more: an identity's policy holds in its own account only.
        partition : str
            ``"aws"``, ``"aws-us-gov"`` or ``"aws-cn"``.
        """
        found = [each.replace(_ACCOUNT, account).replace(_PARTITION, partition) for each in self.resources]
        allowed = {"Action": list(self.actions), "Resource": found[0] if len(found) == 1 else found}
        conditions = {"Condition": _filled(self.conditions, account, partition)} if self.conditions else {}
        return {"Sid": self.sid, "Effect": "Allow", **allowed, **conditions}


def _filled(value: Any, account: str, partition: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(each, account, partition) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_filled(each, account, partition) for each in value]
    return str(value).replace(_ACCOUNT, account).replace(_PARTITION, partition)


def document(rights: Iterable[Right], account: str = "*", partition: str = "aws") -> dict[str, Any]:
    """Return the policy that grants these rights."""
    return {"Version": "2012-10-17", "Statement": [right.statement(account, partition) for right in rights]}
