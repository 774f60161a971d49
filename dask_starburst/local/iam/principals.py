"""Who calls: the user or role behind an access key, with the policies that moto's IAM stores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from dask_starburst.local.backend.account import iam_backend, partition, sts_backend
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.keys import Keys
from dask_starburst.local.iam.model import Document, Principal


def of_credentials(keys: Keys, access_key: str, token: str | None) -> Principal | None:
    """Return the principal of valid credentials; None for the owner, who may do everything.

    Parameters
    ----------
    keys : Keys
        The secrets of the server.
    access_key : str
        The key that a call is signed with.
    token : str, optional
        Its session token.
    """
    if access_key == keys.owner.access_key:
        return None
    session = keys.session(token) if token else None
    if session is not None:
        return of_role(session.role, session.name)
    for assumed in sts_backend().assumed_roles:
        if assumed.access_key_id == access_key:
            return of_role(assumed.role_arn, assumed.session_name, getattr(assumed, "policy", None))
    for user in _iam().users.values():
        if any(key.access_key_id == access_key for key in user.access_keys):
            return of_user(user)
    return Principal(f"arn:{partition()}:iam::{ACCOUNT}:user/unknown", "unknown")


def of_user(user: Any) -> Principal:
    """Return a user of moto's IAM with its own policies and those of its groups."""
    groups = [group for group in _iam().groups.values() if user in group.users]
    policies = {name: document for holder in (user, *groups) for name, document in _policies(holder)}
    return Principal(str(user.arn), str(user.id), policies, name=str(user.name))


def of_role(arn: str, session: str, session_policy: str | None = None) -> Principal:
    """Return the session of a role; without any policy if the role does not exist (any more)."""
    name = arn.rpartition("/")[2]
    # A role's name is unique in an account; the metadata of an instance knows no path.
    role = next((each for each in _iam().roles.values() if each.name == name), None)
    called = f"arn:{partition()}:sts::{ACCOUNT}:assumed-role/{name}/{session}"
    if role is None:
        return Principal(called, f"AROAUNKNOWN:{session}")
    bounds = tuple(_bounds(role.permissions_boundary_arn, session_policy))
    return Principal(called, f"{role.id}:{session}", dict(_policies(role)), bounds)


def _iam() -> Any:
    return iam_backend()


def _policies(holder: Any) -> Iterator[tuple[str, Document]]:
    inline: Mapping[str, Any] = holder.policies
    for name, text in inline.items():
        yield name, _parsed(text)
    yield from _managed(holder.managed_policies.values())


def _managed(policies: Iterable[Any]) -> Iterator[tuple[str, Document]]:
    for policy in policies:
        yield str(policy.name), _of_managed(policy)


def _bounds(boundary: str | None, session_policy: str | None) -> Iterator[Document]:
    if boundary:
        policy = _iam().managed_policies.get(boundary)
        # A boundary that does not exist allows nothing.
        yield _of_managed(policy) if policy is not None else {"Statement": []}
    if session_policy:
        yield _parsed(session_policy)


def _of_managed(policy: Any) -> Document:
    """Return the default version of a managed policy."""
    return next(_parsed(each.document) for each in policy.versions if each.version_id == policy.default_version_id)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Document:
    document: Document = json.loads(text)
    return document
