"""AWS's error codes by what they mean: a part of the table of `faults`, from where all others take them."""

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
#: botocore's own list (retries/standard.py), and SSM's word for two writes at once.
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
#: AWS failed itself; most come with a status of 5xx, some with 400 ("Common Errors" of each service's API reference).
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
#: It is there already: what an idempotent "make it" wants to hear.
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
#: It is gone already: what an idempotent "remove it" wants to hear.
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
#: AWS is still busy with what was asked before: try again (aws-facts §3.3).
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
