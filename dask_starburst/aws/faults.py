"""AWS's words in one table, by code and whole phrase, and the sentences that they become."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dask_starburst.aws.codes import (
    BUSY as BUSY,
)
from dask_starburst.aws.codes import (
    DENIED as DENIED,
)
from dask_starburst.aws.codes import (
    EXISTS as EXISTS,
)
from dask_starburst.aws.codes import (
    EXPIRED as EXPIRED,
)
from dask_starburst.aws.codes import (
    MISSING as MISSING,
)
from dask_starburst.aws.codes import (
    THROTTLED as THROTTLED,
)
from dask_starburst.aws.codes import (
    UNAVAILABLE as UNAVAILABLE,
)
from dask_starburst.errors import AWSUnavailable, CredentialsExpired, NoCredentials, StarburstError, Throttled
from dask_starburst.plan.loop.offerings import Refusal

#: How long what AWS says lasts, and whose matter it is.
#:
#: - ``passing``: AWS's own fault (a throttle, a 5xx, a host that is gone); it is over by itself, and not the worker's.
#: - ``capacity``, ``quota``: AWS has no instance to give, or may give the account no more.
#: - ``fault``: something in the request or in the account, which waiting does not mend.
#: - ``network``: an instance could not reach a registry, which may be over soon or be how its subnet is made.
#: - ``start``: the container could not be started, and the next one most likely cannot either.
Kind = Literal["passing", "capacity", "quota", "fault", "network", "start"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row of the table: AWS's codes and whole phrases, what they mean, and the next step.

    Codes are compared as whole words, in AWS's own case; phrases in any case, at the borders of words.
    """

    kind: Kind
    advice: str
    codes: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def fits(self, text: str) -> bool:
        """Whether a text of AWS's says this."""
        return any(_whole(code).search(text) for code in self.codes) or _says(text, *self.phrases)


@cache
def _whole(words: str, flags: int = 0) -> re.Pattern[str]:
    """Match words that are no part of longer ones: ``InternalError`` is none of ``Client.InternalError``."""
    return re.compile(rf"(?<![\w.]){re.escape(words)}(?!\w)", flags)


_CAPACITY = (
    'Allow more types with instance_types=[…], or on-demand ones with spot_policy="spot_with_fallback" or "on-demand".'
)
_QUOTA = (
    "Look with `starburst quota status`, and ask AWS for a higher vCPU quota of EC2 in Service Quotas with"
    " `starburst quota request`; or use smaller or fewer workers."
)
_FAULT = "That is a fault in the request or in the account, which waiting does not mend."
_PASSING = "That is a fault of AWS's own, which passes; it is tried again by itself."
_IMAGE = (
    "Check image= and that the execution role may pull it. ECR deletes images whose time is over:"
    " `starburst image list` shows those that it has."
)
_HOST = (
    "The container could not be started on its instance. If that goes on, give other instance_types=[…] or a larger"
    " storage.volume_size."
)

#: What AWS's texts mean: of scaling activities, of tasks that stopped, of containers. The first row that fits counts,
#: so what is more exact comes first. Sources: "Troubleshoot Amazon EC2 Auto Scaling: EC2 instance launch failures";
#: "Error codes for the Amazon EC2 API"; "Amazon ECS stopped tasks error messages".
TABLE: tuple[Meaning, ...] = (
    Meaning(
        "passing",
        _PASSING,
        codes=(
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "InternalFailure",
            "InternalError",
            "Server.InternalError",
            "InternalServerError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "Unavailable",
            "toomanyrequests",
        ),
        phrases=(
            "Rate exceeded",
            "Request limit exceeded",
            "Internal error on launch",
            "An internal error has occurred",
        ),
    ),
    Meaning(
        "passing",
        "AWS looks into a new account or region before it launches there, which takes up to four hours.",
        codes=("PendingVerification",),
        phrases=("is being validated, and you will not be able to launch additional resources",),
    ),
    Meaning(
        "passing",
        "AWS took the instance back, or it failed; another one is used.",
        codes=("SpotInterruption", "SpotInstanceTermination", "Server.SpotInstanceTermination", "HostTerminated"),
        phrases=("Host EC2",),
    ),
    Meaning(
        "fault",
        'The subnet has no free addresses: give another one with network={"subnet": "subnet-…"}.',
        codes=("InsufficientFreeAddressesInSubnet",),
        phrases=("not enough free addresses in subnet", "insufficient free addresses"),
    ),
    Meaning(
        "fault",
        "The account's default key for EBS volumes is one of its own, which Auto Scaling may not use: grant it to"
        " AWSServiceRoleForAutoScaling in KMS.",
        codes=("Client.InternalError", "Client.InvalidKMSKey.InvalidState"),
        phrases=("Client error on launch",),
    ),
    Meaning(
        "start",
        "The execution role must be allowed ssm:GetParameters on /starburst/*.",
        phrases=("unable to pull secrets", "unable to retrieve secrets from ssm", "ssm:GetParameters"),
    ),
    Meaning(
        "network",
        "The instance could not reach what it pulls from, or had no answer. If that goes on: can the subnet reach it (a"
        " public subnet, NAT or endpoints)?",
        phrases=(
            "i/o timeout",
            "context deadline exceeded",
            "connection reset by peer",
            "connection refused",
            "TLS handshake timeout",
            "Client.Timeout exceeded while awaiting headers",
            "request canceled while waiting for connection",
            "no such host",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
        ),
    ),
    Meaning(
        "start",
        _IMAGE,
        codes=(
            "CannotPullContainerError",
            "CannotPullECRContainerError",
            "CannotPullImageManifestError",
            "CannotPullContainer",
        ),
        phrases=("unable to pull registry auth",),
    ),
    Meaning(
        "start",
        "The image is built for another architecture: give arch= of the image, or build it for both.",
        phrases=("exec format error", "does not match the specified platform", "no matching manifest for linux"),
    ),
    Meaning(
        "start",
        "It was killed, most often for lack of memory: give a larger worker=.",
        codes=("OutOfMemoryError",),
        phrases=("Container killed due to memory usage",),
    ),
    Meaning(
        "start",
        _HOST,
        codes=(
            "CannotStartContainerError",
            "CannotCreateContainerError",
            "CannotCreateVolumeError",
            "ContainerRuntimeError",
            "ContainerRuntimeTimeoutError",
            "DockerTimeoutError",
            "ResourceInitializationError",
        ),
    ),
    Meaning(
        "quota",
        _QUOTA,
        codes=("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "InstanceLimitExceeded"),
        phrases=(
            "Max spot instance count exceeded",
            "You have requested more vCPU capacity than your current vCPU limit",
            "instance(s) are already running",
        ),
    ),
    Meaning(
        "capacity",
        _CAPACITY,
        codes=(
            "InsufficientInstanceCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientHostCapacity",
            "UnfulfillableCapacity",
            "SpotMaxPriceTooLow",
            "Unsupported",
            "capacity-not-available",
        ),
        phrases=(
            "We currently do not have sufficient",
            "does not have sufficient compatible and available capacity",
            "Unable to fulfill capacity",
            "no Spot capacity available",
            "is not supported in your requested Availability Zone",
            "The requested configuration is currently not supported",
            "is lower than the minimum required Spot request fulfillment price",
        ),
    ),
    Meaning(
        "fault",
        "The identity that launches lacks a right: AWS's text names it, or"
        " `aws sts decode-authorization-message --encoded-message …` does.",
        codes=("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
        phrases=("You are not authorized to perform this operation", "You are not authorized to use launch template"),
    ),
    Meaning(
        "fault",
        _FAULT,
        codes=("Blocked", "OptInRequired", "InvalidParameterValue", "InvalidAMIID.NotFound"),
        phrases=("Invalid IAM Instance Profile", "Launching EC2 instance failed"),
    ),
)
#: What a launch is taken for that AWS explains in words which are in no row.
UNKNOWN_LAUNCH = Meaning("fault", _FAULT)
#: What RunTask answers while AWS has not caught up with what was just made (real-aws R2, R18).
_SETTLING = (
    "unable to assume the role",
    "Unable to assume the service linked role",
    "Unable to describe task definition",
    "TaskDefinition not found",
    "The specified capacity provider",
)
#: Refusals of RunTask that pass by themselves ("API failure reasons", ECS developer guide): the instance is full, still
#: has another task of ours or has just gone; its agent is reconnecting; ECS does not show it yet.
_PLACEMENTS = (
    "RESOURCE",
    "AGENT",
    "DISTINCT",
    "MEMBEROF",
    "EMPTY CAPACITY PROVIDER",
    "NO ACTIVE INSTANCES",
    "MISSING",
    "INACTIVE",
    "DRAINING",
)
#: What AWS says of an instance profile that was made a moment ago (aws-facts §3.5; "CreateAutoScalingGroup").
_FRESH_PROFILE = "Invalid IAM Instance Profile"
#: What a registry says of a tag that has an image and cannot be moved: ECR's and Docker's words.
_TAG_TAKEN = ("ImageTagAlreadyExistsException", "TAG_INVALID", "tag is immutable", "tag invalid")
#: What ECR says of a password that is over (github.com/flipt-io/flipt/issues/3043).
_PASSWORD_OVER = "authorization token has expired"
_INSTANCE_TYPE = re.compile(r"\b[a-z]+\d+[a-z-]*\.(?:\d*x?large|medium|small|micro|nano|metal[\w-]*)\b")


def code_of(error: BaseException | None) -> str:
    """Return AWS's code of an error, of boto3 or of ours; empty when it has none."""
    if isinstance(error, StarburstError):
        return error.code or ""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def meaning(text: str) -> Meaning | None:
    """Return what a text of AWS's means; None if it is in no row. Never ask about what a process of the user's says."""
    return next((row for row in TABLE if row.fits(text)), None)


def outage(error: BaseException) -> bool:
    """Whether AWS could not be asked: it throttles, fails itself, does not answer or takes no credentials just now.

    The call says nothing about what was asked for, and the same call may work in a moment.
    """
    return isinstance(error, Throttled | AWSUnavailable | CredentialsExpired | NoCredentials)


def settling(error: BaseException) -> bool:
    """Whether AWS has not caught up with what was made or asked for before: it is eventually consistent."""
    return code_of(error) in MISSING | BUSY or _says(str(error), *_SETTLING)


def placement_passes(refusal: str) -> bool:
    """Whether the reason for which ECS placed no task on an instance may pass by itself."""
    return refusal.upper().startswith(_PLACEMENTS)


def fresh_profile(error: BaseException) -> bool:
    """Whether Auto Scaling does not know an instance profile yet that has just been made."""
    return code_of(error) == "ValidationError" and _says(str(error), _FRESH_PROFILE)


def tag_taken(text: str) -> bool:
    """Whether a registry says that a tag has an image already and cannot be moved."""
    return _says(text, *_TAG_TAKEN)


def password_over(text: str) -> bool:
    """Whether ECR says that a password has expired."""
    return _says(text, _PASSWORD_OVER)


def _says(text: str, *phrases: str) -> bool:
    return any(_whole(phrase, re.IGNORECASE).search(text) for phrase in phrases)


def launch_meaning(text: str) -> Meaning:
    """Return what AWS's text about a launch that failed means, also where no row has it."""
    return meaning(text) or UNKNOWN_LAUNCH


def launch_refusal(group: str, text: str, at: float) -> Refusal:
    """Return what Auto Scaling's text about a failed launch means; it has no code of its own."""
    kind = launch_meaning(text).kind
    found = _INSTANCE_TYPE.search(text) if kind == "capacity" else None
    known = kind if kind in ("passing", "capacity", "quota") else "fault"
    return Refusal(group, known, text, at, found.group() if found else "")
