"""The ECS API: tags of all resources."""

from __future__ import annotations

from dask_starburst.local.backend.backend import Backend, tag_dict, tag_list
from dask_starburst.local.backend.state import Tags
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import invalid, short

_MOST_TAGS = 50


class TagOperations:
    """Tag and untag clusters, capacity providers, task definitions, container instances and tasks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def tag_resource(self, request: Request) -> Reply:
        """Tag a resource."""
        tags = self._tags(request["resourceArn"])
        requested = {**tags, **tag_dict(request["tags"])}
        if len(requested) > _MOST_TAGS:
            raise invalid(f"A resource can have at most {_MOST_TAGS} tags.")
        tags.update(requested)
        return {}

    def untag_resource(self, request: Request) -> Reply:
        """Remove tags from a resource."""
        tags = self._tags(request["resourceArn"])
        for key in request["tagKeys"]:
            tags.pop(key, None)
        return {}

    def list_tags_for_resource(self, request: Request) -> Reply:
        """List the tags of a resource."""
        return {"tags": tag_list(self._tags(request["resourceArn"]))}

    def _tags(self, arn: str) -> Tags:
        backend = self._backend
        kind, _, rest = arn.rsplit(":ecs:", 1)[-1].split(":", 2)[-1].partition("/")
        name = short(rest)
        found: Tags | None = None
        if kind == "cluster" and name in backend.clusters:
            found = backend.clusters[name].tags
        elif kind == "capacity-provider" and name in backend.providers:
            found = backend.providers[name].tags
        elif kind == "task" and name in backend.tasks:
            found = backend.tasks[name].tags
        elif kind == "container-instance":
            found = next((one.tags for one in backend.registered.values() if one.arn == arn), None)
        elif kind == "task-definition":
            family = name.partition(":")[0]
            found = next((one.tags for one in backend.definitions.get(family, []) if one.arn == arn), None)
        if found is None:
            raise invalid("The specified resource was not found. Specify a valid ARN and try again.")
        return found
