"""The rights of ECS itself: its agent has the instance's role, and the execution role starts tasks.

The agent's calls: amazon-ecs-agent, ecs-agent/api/ecs/client. The execution role's:
docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html.
"""

from __future__ import annotations

import re

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT, Backend
from dask_starburst.local.backend.state import Container, ContainerInstance, Task
from dask_starburst.local.containers.awslogs import log_stream

#: A private registry of ECR: its region, and the repository.
_ECR = re.compile(r"\d{12}\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<name>[^:@]+)")
_SECRETS = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "


def registration_denial(backend: Backend, role: str | None, session: str, cluster: str) -> str | None:
    """Return why the agent of an instance may not register with a cluster; None if it may.

    Parameters
    ----------
    backend : Backend
        The account.
    role : str or None
        The name of the role in the instance's profile. An instance without one cannot register.
    session : str
        The id of the instance.
    cluster : str
        The name of the cluster.
    """
    wanted = [("ecs:DiscoverPollEndpoint", "*"), ("ecs:RegisterContainerInstance", _cluster(backend, cluster))]
    return backend.denial_of_role(_role_arn(role), session, wanted)


def connection_denial(backend: Backend, role: str | None, instance: ContainerInstance) -> str | None:
    """Return why the agent of a registered instance may not receive tasks and report on them; None if it may."""
    cluster = _cluster(backend, instance.cluster)
    wanted = [
        ("ecs:Poll", instance.arn),
        ("ecs:StartTelemetrySession", instance.arn),
        ("ecs:SubmitTaskStateChange", cluster),
        ("ecs:SubmitContainerStateChange", cluster),
    ]
    return backend.denial_of_role(_role_arn(role), instance.ec2_instance.id, wanted)


def draining_denial(backend: Backend, role: str | None, instance: ContainerInstance) -> str | None:
    """Return why the agent may not set its own instance to DRAINING; None if it may."""
    wanted = [("ecs:UpdateContainerInstancesState", instance.arn)]
    return backend.denial_of_role(_role_arn(role), instance.ec2_instance.id, wanted)


def pull_denial(backend: Backend, task: Task, container: Container) -> str | None:
    """Return the reason of a container whose image the execution role may not pull; None if it may."""
    role, found = task.definition.document.get("executionRoleArn"), _ECR.match(container.definition["image"])
    if role is None or found is None:
        return None
    repository = f"arn:{partition()}:ecr:{found['region']}:{ACCOUNT}:repository/{found['name']}"
    actions = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")
    wanted = [("ecr:GetAuthorizationToken", "*"), *((action, repository) for action in actions)]
    denied = backend.denial_of_role(role, task.id, wanted)
    return denied and f"CannotPullECRContainerError: AccessDeniedException: {denied}"


def log_denial(backend: Backend, task: Task, container: Container) -> str | None:
    """Return the reason of a container whose log the execution role may not write; None if it may."""
    role, stream = task.definition.document.get("executionRoleArn"), log_stream(task, container)
    if role is None or stream is None:
        return None
    region, group, name = stream
    arn = f"arn:{partition()}:logs:{region}:{ACCOUNT}:log-group:{group}:log-stream:{name}"
    denied = backend.denial_of_role(role, task.id, [("logs:CreateLogStream", arn), ("logs:PutLogEvents", arn)])
    return denied and (
        "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to create "
        f"Cloudwatch log stream: operation error CloudWatch Logs: CreateLogStream, AccessDeniedException: {denied}"
    )


def secrets_denial(backend: Backend, task: Task, container: Container) -> str | None:
    """Return the reason of a task whose secrets the execution role may not read; None if it may."""
    role = task.definition.document.get("executionRoleArn")
    named = [str(item["valueFrom"]) for item in container.definition.get("secrets", [])]
    parameters = [name for name in named if ":secretsmanager:" not in name]
    if role is None or not parameters:
        return None
    arns = [n if n.startswith("arn:") else backend.arn("ssm", f"parameter/{n.lstrip('/')}") for n in parameters]
    denied = backend.denial_of_role(role, task.id, [("ssm:GetParameters", arn) for arn in arns])
    text = "unable to retrieve secrets from ssm: service call has been retried 1 time(s): AccessDeniedException: "
    return denied and _SECRETS + text + denied


def _cluster(backend: Backend, name: str) -> str:
    return backend.arn("ecs", f"cluster/{name}")


def _role_arn(name: str | None) -> str:
    return f"arn:{partition()}:iam::{ACCOUNT}:role/{name or 'none'}"
