"""The words in which each service says that a call is denied.

docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html, and of EC2
docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from __future__ import annotations

from dask_starburst.local.http.protocols import Protocol, ServiceError
from dask_starburst.local.iam.model import Check, Decision, Principal


def denial(protocol: Protocol, principal: Principal, check: Check, decision: Decision) -> ServiceError:
    """Return the error of a check that failed."""
    text = check.opaque or reason(principal, check, decision)
    match protocol:
        case "ec2":
            return ServiceError(
                "UnauthorizedOperation", f"You are not authorized to perform this operation. {text}", 403
            )
        case "json":
            return ServiceError("AccessDeniedException", text)
        case _:
            return ServiceError("AccessDenied", text, 403)


def reason(principal: Principal, check: Check, decision: Decision) -> str:
    """Return AWS's sentence for a check that failed."""
    because = (
        "with an explicit deny in an identity-based policy"
        if decision.explicit
        else f"because no identity-based policy allows the {check.action} action"
    )
    return f"User: {principal.arn} is not authorized to perform: {check.action} on resource: {check.resource} {because}"


def unknown(protocol: Protocol, call: str) -> ServiceError:
    """Return the error of a call that no table of rights has."""
    code = {"ec2": "UnauthorizedOperation", "json": "AccessDeniedException"}.get(protocol, "AccessDenied")
    text = f"The embedded AWS does not know which rights {call} needs: add it to dask_starburst/local/iam/calls."
    return ServiceError(code, text, 400 if protocol == "json" else 403)
