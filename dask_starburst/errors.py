"""Every error that a user can meet, as one tree.

::

    StarburstError                  anything this package says went wrong
    ├── BadArgument (ValueError)    a wrong argument or setting; nothing was launched
    │   └── UnknownArgument         the argument or setting is unknown (a TypeError, too)
    ├── NoCredentials               no AWS credentials, and the embedded AWS was not asked for
    ├── CredentialsExpired          AWS refused the token
    ├── PermissionDenied            AWS refused one action; ``operation`` names it
    ├── AWSError                    any other failure of an AWS call
    │   ├── Throttled               AWS asked us to slow down, longer than we were willing to wait
    │   └── AWSUnavailable          AWS did not answer, or failed itself; the same call may work in a moment
    ├── PriceUnknown                nobody says what something costs there, so it is not counted as nothing
    ├── CapacityUnavailable         AWS had no instance to give in time
    ├── BudgetExceeded              a cap of the user's does not allow it; ``max_hourly_cost``, ``max_total_cost``
    ├── QuotaExceeded               the account's vCPU quota has no room; nothing was launched
    ├── SchedulerFailed             the scheduler could not be started, or was lost
    ├── WorkerFailed                a worker could not be started, three times over
    ├── LeaseExpired                nobody renewed the lease, so AWS has emptied the pool
    ├── VersionMismatch             client and workers have versions that do not understand each other
    ├── ImageError                  the workers' image could not be made, found or used
    │   ├── NoWheels                packages have nothing that can be installed for an architecture
    │   ├── RegistryDenied          a registry refused us
    │   └── RegistryUnavailable     a registry did not answer, or not sensibly
    └── LocalAWSError               the embedded AWS could not be started

Each message says what failed, the facts, and what to type instead.
"""

from __future__ import annotations


class StarburstError(Exception):
    """What every error of this package derives from.

    Parameters
    ----------
    message : str
        One sentence or a few: what failed, the facts, the next step.
    code : str, optional
        AWS's own error code, such as ``"AccessDeniedException"``.
    operation : str, optional
        The AWS action that failed, as IAM writes it: ``"ecs:RunTask"``.
    request_id : str, optional
        AWS's request id, for a support case.
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
    """An argument or a setting is wrong. Nothing was launched."""


class UnknownArgument(BadArgument, TypeError):
    """An argument or a setting of this name does not exist. The message names the nearest one that does."""


class NoCredentials(StarburstError):
    """There are no AWS credentials and nobody asked for the embedded AWS."""


class CredentialsExpired(StarburstError):
    """AWS says that the credentials are expired or not valid."""


class PermissionDenied(StarburstError):
    """AWS refused one action. ``operation`` is the action to allow."""


class AWSError(StarburstError):
    """An AWS call failed for a reason that has no class of its own."""


class Throttled(AWSError):
    """AWS throttled a call longer than we were willing to wait."""


class AWSUnavailable(AWSError):
    """AWS could not be reached, did not answer or answered 5xx: the same call may work in a moment."""


class PriceUnknown(StarburstError):
    """Neither AWS nor the bundled list says what something costs in a region. It is never taken for nothing."""


class CapacityUnavailable(StarburstError):
    """AWS had no instance of the allowed types to give in time."""


class BudgetExceeded(StarburstError):
    """A cap on what the cluster may cost does not allow it, or has been reached."""


class QuotaExceeded(StarburstError):
    """What was asked for does not fit in a vCPU quota of the account. Nothing was launched.

    Parameters
    ----------
    message : str
        As for all.
    quota : str
        Its code in Service Quotas: ``"L-1216C47A"``.
    limit, used : float
        What it allows, and what of that is in use (vCPUs).
    workers : int
        How many workers would fit.
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
    """A worker could not be started after every attempt."""


class LeaseExpired(StarburstError):
    """Nobody renewed the lease in time, so AWS has emptied the pool."""


class VersionMismatch(StarburstError):
    """Client and workers have versions of Dask's own packages that do not understand each other."""


class ImageError(StarburstError):
    """The workers' image could not be made, found or used."""


class NoWheels(ImageError):
    """Packages of the environment have nothing that can be installed for an architecture."""


class RegistryDenied(ImageError):
    """A registry refused the credentials, or what we asked for with them."""


class RegistryUnavailable(ImageError):
    """A registry did not answer after every attempt, or not as a registry does."""


class LocalAWSError(StarburstError):
    """The embedded AWS could not be started or reached."""
