"""Enforces IAM: decides every call of a principal that is not the owner, and remembers what was decided."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.http import signature as sigv4
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.http.router import Call
from dask_starburst.local.iam import principals, reference
from dask_starburst.local.iam.calls import UnknownCallError, checks
from dask_starburst.local.iam.calls.inventory import Inventory
from dask_starburst.local.iam.denials import denial, reason, unknown
from dask_starburst.local.iam.evaluate import decide
from dask_starburst.local.iam.model import Check, Decision, Enforcement, Principal
from dask_starburst.local.iam.requests import parameters

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

#: IAM's prefix of a service, where it is not the name in signatures.
_IN_IAM: Mapping[str, str] = {"tagging": "tag"}
#: The most decisions that are kept.
_REMEMBERED = 50_000


@dataclass(frozen=True)
class Decided:
    """A check that was decided, without its time: equal ones are kept once."""

    principal: str
    call: str
    action: str
    resource: str
    context: tuple[tuple[str, tuple[str, ...]], ...]
    allowed: bool
    by: tuple[str, ...]


class Enforcer:
    """Decides calls by the identity-based policies of their principal.

    Parameters
    ----------
    backend : Backend
        The resources and their tags.
    enforcement : {"off", "on", "templates"}
        Whether to decide; ``"templates"`` also asks for the rights of a launch template, see `Inventory`.
    """

    def __init__(self, backend: Backend, enforcement: Enforcement = "off") -> None:
        self._backend = backend
        self.enforcement = enforcement
        self._lock = threading.Lock()
        self._decided: dict[Decided, None] = {}
        self._unknown: set[str] = set()

    def refusal(self, environ: WSGIEnvironment, call: Call, body: bytes) -> ServiceError | None:
        """Return the error of a signed call that is denied; None if it is allowed."""
        signature = sigv4.read(environ) if self.enforcement != "off" else None
        principal = signature and principals.of_credentials(self._backend.keys, signature.key, signature.token)
        if not principal:
            return None
        try:
            asked = self._asked(call, body, environ.get("PATH_INFO", ""))
        except UnknownCallError:
            with self._lock:
                self._unknown.add(str(call))
            return unknown(call.protocol, str(call))
        for check in asked:
            decision = self._decide(principal, str(call), check)
            if not decision.allowed:
                return denial(call.protocol, principal, check, decision)
        return None

    def _asked(self, call: Call, body: bytes, path: str) -> tuple[Check, ...]:
        request = parameters(call.service, call.action, call.protocol, body, path)
        inventory = Inventory(self._backend, template_rights=self.enforcement == "templates")
        service = _IN_IAM.get(call.service, call.service)
        with self._backend.lock:
            try:
                return tuple(checks(inventory, f"{service}:{call.action}", request))
            except KeyError:
                return ()  # a required parameter is missing: the service says which

    def denial_of_role(self, role: str, session: str, wanted: Iterable[tuple[str, str]]) -> str | None:
        """Return AWS's sentence if a role may not do one of these actions on a resource; None if it may.

        For what the data plane does itself: the ECS agent, and ECS with the execution role.
        """
        if self.enforcement == "off":
            return None
        principal = principals.of_role(role, session)
        for action, resource in wanted:
            context = {"ecs:cluster": (_cluster_of(resource),)} if ":container-instance/" in resource else {}
            check = Check(action, resource, context)
            decision = self._decide(principal, action, check)
            if not decision.allowed:
                return reason(principal, check, decision)
        return None

    def decided(self) -> dict[str, Any]:
        """Return all decisions, and the calls whose rights no table has."""
        with self._lock:
            return {"decided": [asdict(each) for each in self._decided], "unknown": sorted(self._unknown)}

    def _decide(self, principal: Principal, call: str, check: Check) -> Decision:
        context = {**reference.visible(check), "aws:requestedregion": (self._backend.region,)}
        seen = Check(check.action, check.resource, context, check.opaque)
        decision = decide(principal, seen)
        everything = {**context, **principal.context}
        record = Decided(
            principal.arn,
            call,
            check.action,
            check.resource,
            tuple(sorted(everything.items())),
            decision.allowed,
            decision.by,
        )
        with self._lock:
            if len(self._decided) < _REMEMBERED:
                self._decided.setdefault(record)
        return decision


def _cluster_of(instance: str) -> str:
    head, _, rest = instance.partition(":container-instance/")
    return f"{head}:cluster/{rest.partition('/')[0]}"
