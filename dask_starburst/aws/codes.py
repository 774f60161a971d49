"""AWS's error codes by meaning: a part of the table in `faults`, which re-exports them."""

from __future__ import annotations

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess"})
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
        "AuthFailure",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "InvalidToken",
    }
)
#: The signature's time is too far from AWS's: the caller's clock is wrong.
CLOCK = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
#: botocore's list (retries/standard.py), and SSM's code for concurrent writes.
THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "TooManyUpdates",
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "SlowDown",
    }
)
#: Errors of AWS itself; most have a 5xx status, some 400 ("Common Errors" of each service's API reference).
UNAVAILABLE = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "InternalServerException",
        "ServerException",
        "ServiceException",
        "ServiceFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)
#: The resource exists already: success for an idempotent create.
EXISTS = frozenset(
    {
        "EntityAlreadyExists",
        "EntityAlreadyExistsException",
        "AlreadyExists",
        "AlreadyExistsFault",
        "ResourceAlreadyExistsException",
        "InvalidGroup.Duplicate",
        "InvalidPermission.Duplicate",
        "InvalidLaunchTemplateName.AlreadyExistsException",
        "ParameterAlreadyExists",
        "RepositoryAlreadyExistsException",
        "ImageAlreadyExistsException",
        "ImageTagAlreadyExistsException",
    }
)
#: The resource does not exist: success for an idempotent delete.
MISSING = frozenset(
    {
        "NoSuchEntity",
        "ParameterNotFound",
        "ResourceNotFoundException",
        "ClusterNotFoundException",
        "InvalidGroup.NotFound",
        "InvalidPermission.NotFound",
        "InvalidLaunchTemplateName.NotFoundException",
        "InvalidLaunchTemplateId.NotFound",
        "RepositoryNotFoundException",
        "LifecyclePolicyNotFoundException",
        "NoSuchResourceException",
        "InvalidInstanceID.NotFound",
    }
)
#: An earlier request is still in progress: retry (aws-facts §3.3).
BUSY = frozenset(
    {
        "ClusterContainsContainerInstancesException",
        "ClusterContainsTasksException",
        "ClusterContainsCapacityProviderException",
        "DependencyViolation",
        "ResourceInUse",
        "ResourceInUseException",
        "ScalingActivityInProgress",
        "UpdateInProgressException",
    }
)
