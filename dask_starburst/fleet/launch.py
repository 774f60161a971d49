"""How scheduler and workers are run: their task definitions, and what each one is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dask_starburst.aws import ec2
from dask_starburst.fleet.pool import Pool
from dask_starburst.plan.state import HEAD, SCHEDULER, Action, Observed, RunTask
from dask_starburst.plan.tasks import Launch, run_request


@dataclass
class Launcher:
    """Turns a wish into a RunTask request.

    Parameters
    ----------
    definitions : dict
        Task definition ARN by role, ``scheduler`` and ``worker``.
    port : int
        The scheduler's TCP port.
    """

    definitions: dict[str, str]
    port: int
    head: str | None = None
    private: str = ""
    public: str = ""

    async def look_for_head(self, pool: Pool, observed: Observed) -> None:
        """Learn the scheduler's addresses as soon as its instance exists.

        EC2 knows the private address when the instance is still pending: so workers are told it
        and start beside the scheduler, not after it. The public one comes a little later.
        """
        alive = [i.id for i in observed.instances.values() if i.group == HEAD and not i.terminating]
        if not alive or (self.head == alive[0] and self.public):
            return
        self.head = alive[0]
        self.private, self.public = await ec2.addresses(pool.aws, self.head)

    def ready_for(self, action: Action) -> bool:
        """Whether an action can be performed yet: workers have to know their scheduler."""
        return not isinstance(action, RunTask) or action.group == HEAD or bool(self.private)

    @property
    def scheduler_address(self) -> str:
        """The address that workers connect to."""
        return f"tls://{self.private}:{self.port}"

    @property
    def contact_address(self) -> str:
        """The address that the client connects to."""
        return f"tls://{self.public or self.private}:{self.port}"

    def request(self, pool: Pool, action: RunTask) -> dict[str, Any]:
        """Return the RunTask request of a worker or of the scheduler."""
        role = SCHEDULER if action.group == HEAD else "worker"
        environment = {"STARBURST_NAME": action.worker}
        if role == "worker":
            environment["STARBURST_SCHEDULER"] = self.scheduler_address
        return run_request(
            Launch(
                pool=pool.name,
                session=pool.session,
                group=action.group,
                role=role,
                definition=self.definitions[role],
                worker=action.worker,
                number=action.launch,
                environment=environment,
                tags=pool.tags,
            )
        )
