"""Patches of moto that hide new resources for a while, as AWS does.

Tests: ``tests/local/faults/test_visibility.py``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from moto.core import responses as core_responses
from moto.ec2.exceptions import (
    InvalidLaunchTemplateIdNotFound,
    InvalidLaunchTemplateNameNotFoundError,
    InvalidSecurityGroupNotFoundError,
)
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend
from moto.iam.responses import IamResponse
from moto.ssm.exceptions import ParameterAlreadyExists
from moto.ssm.models import SimpleSystemManagerBackend

#: IAM's operations on a role that do not find it until it is visible.
_OF_ROLES = ("get_role", "get_role_policy", "put_role_policy", "add_role_to_instance_profile")


class Hooks(Protocol):
    """Calls from the patches to the backend."""

    def created(self, what: str, name: str) -> None:
        """Handle a new resource; `what` is one of `local.faults.events.HIDDEN`."""

    def hides(self, what: str, name: str) -> bool:
        """Return whether it is still hidden."""

    def when_shown(self, what: str, name: str, action: Callable[[], None]) -> None:
        """Run an action when it becomes visible."""


def install(hooks: Hooks) -> None:
    """Patch moto, once in a process."""
    _hide_templates(hooks)
    _hide_profiles(hooks)
    _hide_roles(hooks)
    _hide_security_groups(hooks)
    _hide_deletions_of_parameters(hooks)


def _hide_templates(hooks: Hooks) -> None:
    make, find = LaunchTemplateBackend.create_launch_template, LaunchTemplateBackend.describe_launch_templates
    get = LaunchTemplateBackend.get_launch_template

    @functools.wraps(make)
    def create_launch_template(self: Any, *args: Any, **kwargs: Any) -> Any:
        template = make(self, *args, **kwargs)
        hooks.created("launch-templates", template.id)
        return template

    @functools.wraps(find)
    def describe_launch_templates(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = find(self, *args, **kwargs)
        shown = [one for one in found if not hooks.hides("launch-templates", one.id)]
        if len(shown) < len(found) and (kwargs.get("template_names") or kwargs.get("template_ids")):
            raise InvalidLaunchTemplateNameNotFoundError
        return shown

    @functools.wraps(get)
    def get_launch_template(self: Any, template_id: str) -> Any:
        if hooks.hides("launch-templates", template_id):
            raise InvalidLaunchTemplateIdNotFound(template_id)
        return get(self, template_id)

    LaunchTemplateBackend.create_launch_template = create_launch_template
    LaunchTemplateBackend.describe_launch_templates = describe_launch_templates
    LaunchTemplateBackend.get_launch_template = get_launch_template


def _hide_profiles(hooks: Hooks) -> None:
    make, show = IAMBackend.create_instance_profile, IamResponse.get_instance_profile

    @functools.wraps(make)
    def create_instance_profile(self: Any, *args: Any, **kwargs: Any) -> Any:
        profile = make(self, *args, **kwargs)
        hooks.created("instance-profiles", profile.name)
        return profile

    @functools.wraps(show)
    def get_instance_profile(self: Any) -> Any:
        name = self._get_param("InstanceProfileName")
        if hooks.hides("instance-profiles", name):
            raise NotFoundException(f"Instance Profile {name} cannot be found.")
        return show(self)

    def list_instance_profiles(self: Any) -> Any:
        profiles = self.backend.get_instance_profiles()
        shown = [one for one in profiles if not hooks.hides("instance-profiles", one.name)]
        return core_responses.ActionResult({"InstanceProfiles": shown})

    IAMBackend.create_instance_profile = create_instance_profile
    IamResponse.get_instance_profile = get_instance_profile
    IamResponse.list_instance_profiles = list_instance_profiles


def _hide_roles(hooks: Hooks) -> None:
    make = IAMBackend.create_role

    @functools.wraps(make)
    def create_role(self: Any, *args: Any, **kwargs: Any) -> Any:
        role = make(self, *args, **kwargs)
        service = kwargs.get("linked_service")
        hooks.created(*(("service-linked-roles", service) if service else ("roles", role.name)))
        return role

    def unless_hidden(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(operation)
        def answer(self: Any) -> Any:
            name = self._get_param("RoleName")
            if hooks.hides("roles", name):
                raise NotFoundException(f"The role with name {name} cannot be found.")
            return operation(self)

        return answer

    IAMBackend.create_role = create_role
    for name in _OF_ROLES:
        setattr(IamResponse, name, unless_hidden(getattr(IamResponse, name)))


def _hide_security_groups(hooks: Hooks) -> None:
    make, find = SecurityGroupBackend.create_security_group, SecurityGroupBackend.describe_security_groups
    authorize = SecurityGroupBackend.authorize_security_group_ingress

    @functools.wraps(make)
    def create_security_group(self: Any, *args: Any, **kwargs: Any) -> Any:
        group = make(self, *args, **kwargs)
        hooks.created("security-groups", group.id)
        return group

    @functools.wraps(find)
    def describe_security_groups(self: Any, group_ids: Iterable[str] | None = None, *args: Any, **kwargs: Any) -> Any:
        for group_id in group_ids or ():
            if hooks.hides("security-groups", group_id):
                raise InvalidSecurityGroupNotFoundError(group_id)
        found = find(self, group_ids, *args, **kwargs)
        return [group for group in found if not hooks.hides("security-groups", group.id)]

    @functools.wraps(authorize)
    def authorize_security_group_ingress(self: Any, group_name_or_id: str, *args: Any, **kwargs: Any) -> Any:
        if hooks.hides("security-groups", group_name_or_id):
            raise InvalidSecurityGroupNotFoundError(group_name_or_id)
        return authorize(self, group_name_or_id, *args, **kwargs)

    SecurityGroupBackend.create_security_group = create_security_group
    SecurityGroupBackend.describe_security_groups = describe_security_groups
    SecurityGroupBackend.authorize_security_group_ingress = authorize_security_group_ingress


def _hide_deletions_of_parameters(hooks: Hooks) -> None:
    """Until a deletion is visible, its name is taken; a value written over it is lost with it.

    AWS documents only that one has to wait 30 seconds before the name is used again.
    """
    put, signature = (
        SimpleSystemManagerBackend.put_parameter,
        inspect.signature(SimpleSystemManagerBackend.put_parameter),
    )
    one, many = SimpleSystemManagerBackend.delete_parameter, SimpleSystemManagerBackend.delete_parameters

    @functools.wraps(put)
    def put_parameter(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        name = given["name"]
        hidden = hooks.hides("deleted-parameters", name)
        if hidden and not given["overwrite"]:
            raise ParameterAlreadyExists
        made = put(self, *args, **kwargs)
        if hidden:
            hooks.when_shown("deleted-parameters", name, functools.partial(_lose, self._parameters, name))
        return made

    @functools.wraps(one)
    def delete_parameter(self: Any, name: str) -> None:
        one(self, name)
        hooks.created("deleted-parameters", name)

    @functools.wraps(many)
    def delete_parameters(self: Any, names: list[str]) -> list[str]:
        deleted: list[str] = many(self, names)
        for name in deleted:
            hooks.created("deleted-parameters", name)
        return deleted

    SimpleSystemManagerBackend.put_parameter = put_parameter
    SimpleSystemManagerBackend.delete_parameter = delete_parameter
    SimpleSystemManagerBackend.delete_parameters = delete_parameters


def _lose(parameters: Any, name: str) -> None:
    parameters.pop(name, None)
