"""People and roles of an embedded AWS that enforces IAM, with the policies that dask_starburst publishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3

from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.rights import Holder, document
from dask_starburst.plan.requests.rights_table import rights_of

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """An identity, and how programs act as it."""

    aws: LocalAWS
    access_key: str
    secret_key: str
    token: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that direct AWS SDKs to the embedded AWS as this person."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**self.aws.environment, **keys}

    @property
    def session(self) -> boto3.Session:
        return self.aws.session_of(self.access_key, self.secret_key, self.token)

    def call(self, work: Callable[[AWS], Awaitable[T]]) -> T:
        """Run our own code as this person."""

        async def run() -> T:
            ours = AWS(session=self.session)
            try:
                return await work(ours)
            finally:
                ours.close()

        return asyncio.run(run())


def person(aws: LocalAWS, name: str, *holders: Holder) -> Person:
    """Create a user with the published policies of these holders, as managed policies."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    known = {each["PolicyName"]: each["Arn"] for each in iam.list_policies(Scope="Local")["Policies"]}
    for holder in holders:
        title, text = f"starburst-{holder}", json.dumps(document(rights_of(holder)))
        arn = known.get(title) or iam.create_policy(PolicyName=title, PolicyDocument=text)["Policy"]["Arn"]
        iam.attach_user_policy(UserName=name, PolicyArn=arn)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Person(aws, key["AccessKeyId"], key["SecretAccessKey"])


def role(aws: LocalAWS, name: str) -> Person:
    """Return a session of one of our roles."""
    arn = aws.client("iam").get_role(RoleName=name)["Role"]["Arn"]
    made: dict[str, Any] = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return Person(aws, made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
