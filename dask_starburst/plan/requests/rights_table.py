"""The rights of administrators, users and roles: one table, from which every published policy is made.

As narrow as AWS's service authorization reference permits: our resources are named ``starburst-…`` or carry the tag
``starburst:pool``, whose value is the pool, or ``starburst`` for what all pools of an account share.
``tests/cluster/test_rights.py`` makes all calls under these policies, and holds each action to a call that needs it.
"""

from __future__ import annotations

from dask_starburst.plan.requests.rights import MANAGED_TAG, NAMESPACE, PEOPLE, Condition, Holder, Right, arn

_ROLES = arn("iam", f"role/{NAMESPACE}/{NAMESPACE}-*", region="")
_PROFILES = arn("iam", f"instance-profile/{NAMESPACE}/{NAMESPACE}-*", region="")
#: IAM looks for a role by its name, and one that does not exist has no path.
_NAMED_ROLES = arn("iam", f"role/{NAMESPACE}-*", region="")
_NAMED_PROFILES = arn("iam", f"instance-profile/{NAMESPACE}-*", region="")
_SERVICE_LINKED = (
    arn("iam", "role/aws-service-role/*", region=""),
    arn("iam", "role/AWSServiceRoleFor*", region=""),
)
_CLUSTERS = arn("ecs", f"cluster/{NAMESPACE}-*")
_PROVIDERS = arn("ecs", f"capacity-provider/{NAMESPACE}-*")
_DEFINITIONS = arn("ecs", f"task-definition/{NAMESPACE}-*:*")
_TASKS = arn("ecs", f"task/{NAMESPACE}-*/*")
_HOSTS = arn("ecs", f"container-instance/{NAMESPACE}-*/*")
_GROUPS = arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{NAMESPACE}-*")
_LOGS = arn("logs", f"log-group:/{NAMESPACE}:*")
_CLAIMS = arn("ssm", f"parameter/{NAMESPACE}/claims")
_SECRETS = arn("ssm", f"parameter/{NAMESPACE}/tls/*")
_REPOSITORIES = arn("ecr", f"repository/{NAMESPACE}/*")
#: Public parameters and images belong to no account.
_AMI_NAMES = arn("ssm", "parameter/aws/service/ecs/optimized-ami/*", account="")
_AMIS = arn("ec2", "image/*", account="")


def _ec2(*kinds: str) -> tuple[str, ...]:
    return tuple(arn("ec2", f"{kind}/*") for kind in kinds)


def _tagged(key: str, value: str) -> Condition:
    return {"StringLike": {f"aws:{key}/{MANAGED_TAG}": value}}


#: What belongs to a pool, and what is made for one, in contrast to what all pools share.
_OF_POOL, _FOR_POOL = _tagged("ResourceTag", f"{NAMESPACE}-*"), _tagged("RequestTag", f"{NAMESPACE}-*")
_SHARED, _TO_SHARE = _tagged("ResourceTag", NAMESPACE), _tagged("RequestTag", NAMESPACE)
_ZERO: Condition = {"NumericEquals": {"autoscaling:MinSize": "0", "autoscaling:MaxSize": "0"}}
_SERVICES = ("ecs.amazonaws.com", "autoscaling.amazonaws.com", "spot.amazonaws.com")


def _equals(key: str, *values: str) -> Condition:
    return {"StringEquals": {key: values}}


#: Actions without resource-level permissions: names and states of resources, and prices. DeregisterTaskDefinition only
#: hides a definition.
_READS = (
    Right(
        "Look",
        ("user",),
        (
            "autoscaling:DescribeAutoScalingGroups",
            "autoscaling:DescribeScheduledActions",
            "ce:GetCostAndUsage",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplates",
            "ecs:DeregisterTaskDefinition",
            "ecs:DescribeTaskDefinition",
            "ecs:ListClusters",
            "ecs:ListTaskDefinitionFamilies",
            "ecs:ListTaskDefinitions",
            "pricing:GetProducts",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
            "ssm:DescribeParameters",
        ),
    ),
    Right(
        "Choose",
        PEOPLE,
        (
            "autoscaling:DescribeScalingActivities",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeRegions",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSpotPriceHistory",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcEndpoints",
            "ec2:GetEbsDefaultKmsKeyId",
            "ec2:GetSpotPlacementScores",
            "logs:DescribeLogGroups",
        ),
    ),
    Right("SeeServiceLinkedRoles", ("admin",), ("iam:GetRole",), _SERVICE_LINKED),
    Right("FindImage", PEOPLE, ("ssm:GetParameter",), (_AMI_NAMES,)),
)

_ADMIN = (
    Right(
        "ManageRoles",
        ("admin",),
        (
            "iam:CreateRole",
            "iam:TagRole",
            "iam:PutRolePolicy",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListRolePolicies",
            "iam:DeleteRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:DetachRolePolicy",
            "iam:DeleteRole",
        ),
        (_ROLES, _NAMED_ROLES),
    ),
    Right(
        "ManageInstanceProfile",
        ("admin",),
        (
            "iam:CreateInstanceProfile",
            "iam:TagInstanceProfile",
            "iam:AddRoleToInstanceProfile",
            "iam:GetInstanceProfile",
            "iam:RemoveRoleFromInstanceProfile",
            "iam:DeleteInstanceProfile",
        ),
        (_PROFILES, _NAMED_PROFILES),
    ),
    Right("FindRoles", ("admin",), ("iam:ListRoles", "iam:ListInstanceProfiles")),
    # For `starburst teardown`, which needs the rights of users and builders as well.
    Right("TerminateInstances", ("admin",), ("ec2:TerminateInstances",), _ec2("instance"), _OF_POOL),
    Right(
        "FindRepositories",
        ("admin",),
        ("ecr:DescribeRepositories", "ecr:ListTagsForResource"),
        (arn("ecr", "repository/*"),),
    ),
    # Also of clusters and groups that were deleted by hand: only a list of all shows them.
    Right("FindProviders", ("admin",), ("ecs:DescribeCapacityProviders",), (arn("ecs", "capacity-provider/*"),)),
    Right("DeleteRepositories", ("admin",), ("ecr:DeleteRepository",), (_REPOSITORIES,)),
    Right(
        "MakeServiceLinkedRoles",
        ("admin",),
        ("iam:CreateServiceLinkedRole",),
        (_SERVICE_LINKED[0],),
        _equals("iam:AWSServiceName", *_SERVICES),
    ),
    Right(
        "ManageLogGroup",
        ("admin",),
        ("logs:CreateLogGroup", "logs:TagResource", "logs:PutRetentionPolicy", "logs:DeleteLogGroup"),
        (_LOGS,),
    ),
    Right("MakeSharedSecurityGroup", ("admin",), ("ec2:CreateSecurityGroup",), _ec2("security-group"), _TO_SHARE),
    Right(
        "TagSharedSecurityGroup",
        ("admin",),
        ("ec2:CreateTags",),
        _ec2("security-group"),
        _equals("ec2:CreateAction", "CreateSecurityGroup"),
    ),
    Right(
        "ManageSharedSecurityGroup",
        ("admin",),
        ("ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup"),
        _ec2("security-group"),
        _SHARED,
    ),
    Right(
        "RequestQuotas",
        ("admin",),
        (
            "servicequotas:RequestServiceQuotaIncrease",
            "servicequotas:ListRequestedServiceQuotaChangeHistory",
            "servicequotas:ListRequestedServiceQuotaChangeHistoryByQuota",
        ),
    ),
)

_CAPACITY = (
    Right(
        "MakeForPools",
        ("user",),
        (
            "autoscaling:CreateAutoScalingGroup",
            "ec2:CreateLaunchTemplate",
            "ec2:CreateSecurityGroup",
            "ec2:RunInstances",  # what is launched, tagged; Auto Scaling asks for it
        ),
        (_GROUPS, *_ec2("launch-template", "security-group", "instance", "volume", "network-interface")),
        _FOR_POOL,
    ),
    Right(
        "ChangePools",
        ("user",),
        (
            "autoscaling:UpdateAutoScalingGroup",
            "autoscaling:SetDesiredCapacity",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
            "autoscaling:PutScheduledUpdateGroupAction",
            "autoscaling:DeleteScheduledAction",
            "autoscaling:DeleteTags",
            "autoscaling:DeleteAutoScalingGroup",
            "ec2:DeleteLaunchTemplate",
            "ec2:RunInstances",  # from which template
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupIngress",
            "ec2:DeleteSecurityGroup",
        ),
        (_GROUPS, *_ec2("launch-template", "security-group")),
        _OF_POOL,
    ),
    # Into which network; only what a launch template launches.
    Right(
        "LaunchIn",
        ("user",),
        ("ec2:RunInstances",),
        (_AMIS, *_ec2("subnet", "security-group")),
        {"ArnLike": {"ec2:LaunchTemplate": arn("ec2", "launch-template/*")}},
    ),
    # The tags of a new group are checked before it has them. ECS tags it as well.
    Right("TagGroups", ("user",), ("autoscaling:CreateOrUpdateTags",), (_GROUPS,)),
    Right(
        "TagNew",
        ("user",),
        ("ec2:CreateTags",),
        _ec2("instance", "volume", "network-interface", "launch-template", "security-group"),
        _equals("ec2:CreateAction", "RunInstances", "CreateLaunchTemplate", "CreateSecurityGroup"),
    ),
    Right("MakeSecurityGroupIn", PEOPLE, ("ec2:CreateSecurityGroup",), _ec2("vpc")),
    Right(
        "PassToInstances",
        PEOPLE,
        ("iam:PassRole",),
        (arn("iam", f"role/{NAMESPACE}/{NAMESPACE}-instance", region=""),),
        _equals("iam:PassedToService", "ec2.amazonaws.com", "ec2.amazonaws.com.cn"),
    ),
)

_ECS = (
    Right(
        "RunClusters",
        ("user",),
        (
            "ecs:CreateCluster",
            "ecs:DescribeClusters",
            "ecs:DeleteCluster",
            "ecs:PutClusterCapacityProviders",
            "ecs:ListContainerInstances",
            "ecs:DeregisterContainerInstance",
            "ecs:CreateCapacityProvider",
            "ecs:DescribeCapacityProviders",
            "ecs:DeleteCapacityProvider",
            "ecs:RegisterTaskDefinition",
            "ecs:StopTask",
            "ecs:DescribeContainerInstances",
        ),
        (_CLUSTERS, _PROVIDERS, _DEFINITIONS, _TASKS, _HOSTS),
    ),
    Right("RunTasks", ("user",), ("ecs:RunTask",), (_DEFINITIONS,), {"ArnLike": {"ecs:cluster": _CLUSTERS}}),
    # Also of other clusters: an image that any task uses is not deleted, and quotas count all tasks on Fargate.
    Right(
        "SeeTasks",
        ("user",),
        ("ecs:DescribeTasks", "ecs:ListTasks"),
        (arn("ecs", "task/*"), arn("ecs", "container-instance/*")),
    ),
    Right(
        "TagTasks",
        ("user",),
        ("ecs:TagResource",),
        (_CLUSTERS, _PROVIDERS, _DEFINITIONS, _TASKS),
        _equals("ecs:CreateAction", "CreateCluster", "CreateCapacityProvider", "RegisterTaskDefinition", "RunTask"),
    ),
    Right(
        "PassToTasks",
        ("user",),
        ("iam:PassRole",),
        tuple(
            arn("iam", f"role/{NAMESPACE}/{NAMESPACE}-{role}", region="")
            for role in ("execution", "scheduler", "worker")
        ),
        _equals("iam:PassedToService", "ecs-tasks.amazonaws.com"),
    ),
    Right(
        "SeeRoles",
        ("user",),
        ("iam:GetRole", "iam:GetRolePolicy", "iam:GetInstanceProfile"),
        (_ROLES, _PROFILES, *_SERVICE_LINKED),
    ),
    Right("ReadLogs", ("user",), ("logs:FilterLogEvents", "logs:GetLogEvents"), (_LOGS,)),
    Right(
        "ClaimPools",
        ("user",),
        (
            "ssm:PutParameter",
            "ssm:AddTagsToResource",
            "ssm:GetParametersByPath",
            "ssm:DeleteParameter",
        ),
        (_CLAIMS, f"{_CLAIMS}/*"),
    ),
    # Only the execution role reads certificates.
    Right("PutSecrets", ("user",), ("ssm:PutParameter", "ssm:DeleteParameter"), (_SECRETS,)),
)

_IMAGES = (
    Right("LogIn", ("builder", "execution"), ("ecr:GetAuthorizationToken",)),
    Right(
        "BuildImages",
        ("builder",),
        (
            "ecr:CreateRepository",
            "ecr:TagResource",
            "ecr:PutLifecyclePolicy",
            "ecr:GetLifecyclePolicy",
            "ecr:DescribeRepositories",
            "ecr:DescribeImages",
            "ecr:BatchGetImage",
            "ecr:BatchCheckLayerAvailability",
            "ecr:GetDownloadUrlForLayer",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
            "ecr:BatchDeleteImage",
        ),
        (_REPOSITORIES,),
    ),
)

_OF_ROLES = (
    # What the ECS agent calls (ecs-agent/api/ecs/client of amazon-ecs-agent), on no other cluster of the account.
    Right(
        "Register",
        ("instance",),
        (
            "ecs:RegisterContainerInstance",
            "ecs:SubmitTaskStateChange",
            "ecs:SubmitContainerStateChange",
            "ecs:SubmitAttachmentStateChanges",
        ),
        (_CLUSTERS,),
    ),
    Right(
        "Listen",
        ("instance",),
        ("ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"),
        (_HOSTS,),
    ),
    Right("Discover", ("instance",), ("ecs:DiscoverPollEndpoint", "autoscaling:DescribeTags")),
    # The reaper. IAM cannot restrict this to the instance itself.
    Right("Reap", ("instance",), ("autoscaling:TerminateInstanceInAutoScalingGroup",), (_GROUPS,), _OF_POOL),
    Right(
        "Pull",
        ("execution",),
        ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"),
        (arn("ecr", "repository/*", account="*"),),  # other accounts decide for themselves
    ),
    Right("WriteLogs", ("execution",), ("logs:CreateLogStream", "logs:PutLogEvents"), (_LOGS,)),
    Right("ReadSecrets", ("execution",), ("ssm:GetParameters",), (_SECRETS,)),
    # The lease keeper may only empty the groups.
    Right(
        "Empty",
        ("scheduler",),
        ("autoscaling:PutScheduledUpdateGroupAction", "autoscaling:UpdateAutoScalingGroup"),
        (_GROUPS,),
        {**_OF_POOL, **_ZERO},
    ),
)

TABLE: tuple[Right, ...] = (*_READS, *_ADMIN, *_CAPACITY, *_ECS, *_IMAGES, *_OF_ROLES)


def rights_of(holder: Holder) -> tuple[Right, ...]:
    """Return the rights of people or of a role."""
    return tuple(right for right in TABLE if holder in right.holders)


def named(sid: str) -> Right:
    """Return one right by its ``Sid``."""
    return next(right for right in TABLE if right.sid == sid)
