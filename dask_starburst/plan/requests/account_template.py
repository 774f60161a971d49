"""The account's shared resources as a CloudFormation template, for an administrator who deploys it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dask_starburst.plan.requests import policies
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.policy_formats import role_resources
from dask_starburst.plan.requests.tasks import LOG_GROUP

#: CloudFormation's pseudo parameters.
_ACCOUNT, _PARTITION, _SUFFIX = "${AWS::AccountId}", "${AWS::Partition}", "${AWS::URLSuffix}"
_TAGS = [{"Key": MANAGED_TAG, "Value": NAMESPACE}]
_YES_NO: dict[str, Any] = {"Type": "String", "AllowedValues": ["yes", "no"], "Default": "yes"}


def account_template(log_retention: int) -> str:
    """Return the template in YAML.

    Parameters
    ----------
    log_retention : int
        Days for which logs are kept: ``storage.log_retention``.
    """
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "What all Dask clusters of dask-starburst in this account share. Free while nothing runs.",
        "Parameters": _parameters(),
        "Conditions": {
            "WithRoles": _is_yes("Roles"),
            **{_condition(name): _is_yes(_condition(name)) for _, name in policies.SERVICE_LINKED_ROLES},
        },
        "Resources": {**_roles(), **_linked(), **_of_region(log_retention)},
    }
    return yaml.dump(template, Dumper=_NoAliases, sort_keys=False, width=120)


class _NoAliases(yaml.SafeDumper):
    """CloudFormation rejects YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True


def _parameters() -> dict[str, Any]:
    about = f"no where another region has created the roles {NAMESPACE}-* already: they hold in all regions."
    linked = {
        _condition(name): {**_YES_NO, "Description": f"no where the account has the role {name} already."}
        for _, name in policies.SERVICE_LINKED_ROLES
    }
    vpc = {"Type": "AWS::EC2::VPC::Id", "Description": "The VPC that clusters run in: the default one, if in doubt."}
    return {"Vpc": vpc, "Roles": {**_YES_NO, "Description": about}, **linked}


def _is_yes(parameter: str) -> dict[str, Any]:
    return {"Fn::Equals": [{"Ref": parameter}, "yes"]}


def _condition(linked_role: str) -> str:
    return linked_role.removeprefix("AWSServiceRoleFor") + "Role"


def _roles() -> dict[str, Any]:
    instance = policies.instance_role(_ACCOUNT, _PARTITION, _SUFFIX)
    made = role_resources((instance, *policies.roles(_ACCOUNT, _PARTITION)[1:]))
    return {name: {**_filled(each), "Condition": "WithRoles"} for name, each in made.items()}


def _filled(value: Any) -> Any:
    """Let CloudFormation fill in its pseudo parameters."""
    if isinstance(value, Mapping):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each) for each in value]
    if not isinstance(value, str) or "${AWS::" not in value:
        return value
    return {"Fn::Sub": value.replace("${aws:", "${!aws:")}  # IAM's own variables stay


def _linked() -> dict[str, Any]:
    """Return AWS's own roles, which other programs use too: they stay when the stack is deleted."""
    return {
        f"Linked{_condition(name)}": {
            "Type": "AWS::IAM::ServiceLinkedRole",
            "Condition": _condition(name),
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {"AWSServiceName": service},
        }
        for service, name in policies.SERVICE_LINKED_ROLES
    }


def _of_region(log_retention: int) -> dict[str, Any]:
    group = {
        "GroupName": NAMESPACE,
        "GroupDescription": "Dask workers among themselves",
        "VpcId": {"Ref": "Vpc"},
        "Tags": list(_TAGS),
    }
    source = {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}
    rule = {
        "GroupId": source,
        "SourceSecurityGroupId": source,
        "IpProtocol": "tcp",
        "FromPort": 0,
        "ToPort": 65535,
        "Description": "Dask workers among themselves",
    }
    logs = {"LogGroupName": LOG_GROUP, "RetentionInDays": log_retention, "Tags": list(_TAGS)}
    return {
        "LogGroup": {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": logs,
        },
        "SecurityGroup": {"Type": "AWS::EC2::SecurityGroup", "Properties": group},
        "SecurityGroupRule": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": rule},
    }
