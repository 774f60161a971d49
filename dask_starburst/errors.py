"""The exceptions of this package.

::

    StarburstError                  the base class
    ├── BadArgument (ValueError)    an argument or setting is invalid; nothing was launched
    │   └── UnknownArgument         the argument or setting is unknown (also a TypeError)
    ├── NoCredentials               no AWS credentials, and the embedded AWS was not requested
    ├── CredentialsExpired          AWS refused the token
    ├── PermissionDenied            AWS denied an action; ``operation`` names it
    ├── AWSError                    any other failure of an AWS call
    │   ├── Throttled               AWS throttled a call until its retries were used up
    │   └── AWSUnavailable          AWS did not answer or answered 5xx; the call may succeed when repeated
    ├── PriceUnknown                no source has a price; it does not count as zero
    ├── CapacityUnavailable         AWS had no capacity for an instance in time
    ├── BudgetExceeded              a cost cap is exceeded: ``max_hourly_cost``, ``max_total_cost``
    ├── QuotaExceeded               a vCPU quota of the account is too small; nothing was launched
    ├── SchedulerFailed             the scheduler could not be started, or was lost
    ├── WorkerFailed                a worker could not be started in three attempts
    ├── LeaseExpired                the lease was not renewed, so AWS has emptied the pool
    ├── VersionMismatch             client and workers have incompatible versions
    ├── ImageError                  the workers' image could not be built, found or used
    │   ├── NoWheels                packages have no wheels for an architecture
    │   ├── RegistryDenied          a registry denied access
    │   └── RegistryUnavailable     a registry did not answer, or its answer was not valid
    └── LocalAWSError               the embedded AWS could not be started

Each message says what failed, the facts, and the next step.
"""

from __future__ import annotations


class StarburstError(Exception):
    """Base class of the errors of this package.

    Parameters
    ----------
    message : str
        What failed, the facts, and the next step.
    code : str, optional
        AWS's error code, such as ``"AccessDeniedException"``.
    operation : str, optional
        The AWS action that failed, as IAM writes it: ``"ecs:RunTask"``.
    request_id : str, optional
        AWS's request ID, for a support case.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        operation: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation
        self.request_id = request_id


class BadArgument(StarburstError, ValueError):
    """An argument or a setting is invalid. Nothing was launched."""


class UnknownArgument(BadArgument, TypeError):
    """An argument or a setting does not exist. The message names the closest one that does."""


class NoCredentials(StarburstError):
    """There are no AWS credentials, and the embedded AWS was not requested."""


class CredentialsExpired(StarburstError):
    """The AWS credentials are expired or not valid."""


class PermissionDenied(StarburstError):
    """AWS denied an action. ``operation`` is the action to allow."""


class AWSError(StarburstError):
    """An AWS call failed for any other reason."""


class Throttled(AWSError):
    """AWS throttled a call until its retries were used up."""


class AWSUnavailable(AWSError):
    """AWS could not be reached, did not answer or answered 5xx. The call may succeed when repeated."""


class PriceUnknown(StarburstError):
    """Neither AWS nor the bundled list has a price. It does not count as zero."""


class CapacityUnavailable(StarburstError):
    """AWS had no capacity for the allowed instance types in time."""


class BudgetExceeded(StarburstError):
    """A cost cap of the cluster would be exceeded, or has been reached."""


class QuotaExceeded(StarburstError):
    """The request does not fit in a vCPU quota of the account. Nothing was launched.

    Parameters
    ----------
    message : str
        As for `StarburstError`.
    quota : str
        The quota code in Service Quotas: ``"L-1216C47A"``.
    limit, used : float
        The quota and its current use in vCPUs.
    workers : int
        Number of workers that would fit.
    """

    def __init__(self, message: str, *, quota: str, limit: float, used: float, workers: int) -> None:
        super().__init__(message)
        self.quota = quota
        self.limit = limit
        self.used = used
        self.workers = workers


class SchedulerFailed(StarburstError):
    """The Dask scheduler could not be started, or was lost."""


class WorkerFailed(StarburstError):
    """A worker could not be started in any of its attempts."""


class LeaseExpired(StarburstError):
    """The lease was not renewed in time, so AWS has emptied the pool."""


class VersionMismatch(StarburstError):
    """Client and workers have incompatible versions of Dask's packages."""


class ImageError(StarburstError):
    """The workers' image could not be built, found or used."""


class NoWheels(ImageError):
    """Packages of the environment have no wheels for an architecture."""


class RegistryDenied(ImageError):
    """A registry denied access."""


class RegistryUnavailable(ImageError):
    """A registry did not answer in any attempt, or its answer was not valid."""


class LocalAWSError(StarburstError):
    """The embedded AWS could not be started or reached."""
