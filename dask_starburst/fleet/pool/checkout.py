"""Check out a pool: claim the best free one, and create what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.pool import claims, release, reuse
from dask_starburst.fleet.pool.pool import Pool, make, owns
from dask_starburst.plan.requests.pool import PoolNames, PoolSpec
from dask_starburst.plan.requests.reuse import Candidate


@dataclass
class Checkout:
    """The check-out of one pool; it says how far it came, so that a start that fails can be undone.

    Parameters
    ----------
    aws : AWS
        The account.
    session : str
        The ID of the session that will hold the claim.
    patience : Patience
        Repeats calls that fail because AWS does not show yet what has just been made.

    Attributes
    ----------
    names : PoolNames or None
        Names of the pool that is claimed, or was being claimed.
    making : bool
        Whether the creation of the pool's resources has begun.
    entrance : str or None
        The security group whose ingress rule may already admit the caller.
    """

    aws: AWS
    session: str
    patience: Patience
    names: PoolNames | None = None
    making: bool = False
    entrance: str | None = None

    async def run(
        self,
        spec: PoolSpec,
        arn: str,
        workers: int,
        until: float,
        check: Callable[[str], None],
        *,
        caller: str = "",
        ports: tuple[int, ...] = (),
        claimed: Callable[[Candidate], None] = lambda found: None,
    ) -> Pool:
        """Return the pool, claimed and complete, without new capacity.

        Parameters
        ----------
        spec : PoolSpec
            Its specification.
        arn : str
            Who claims it.
        workers : int
            How many instances for workers would be useful in it.
        until : float
            The lease of the instances that are already in it (seconds, AWS's clock).
        check : callable
            Receives the pool's name and raises what forbids the start; nothing has been created then.
        caller, ports : str and tuple of int
            The CIDR block that may connect to the scheduler, and its ports; no address may by default.
        claimed : callable
            Receives the claimed pool before anything is created.
        """
        found = await reuse.claim_best(self.aws, spec, workers, self.session, arn, self.patience, self._on_attempt)
        check(found.name)
        self.making = True
        if found.instances:
            await reuse.extend_lease(self.aws, found.name, until)
        claimed(found)
        return await make(
            self.aws, spec, PoolNames(found.name), self.session, caller, ports, self.patience, self._on_security_group
        )

    async def undo(self, patience: float, poll: float) -> None:
        """Undo a check-out that failed: release the claim, and terminate what was in the pool. See `release.undo`.

        A claim of another session stays: the check-out may have failed while it tried to claim the same pool.
        """
        await self.aws.wait_for_calls(patience)  # after Ctrl-C the claim may still be on its way to AWS
        if self.names is None or not await owns(self.aws, self.names, self.session):
            return
        if self.making:
            await release.undo(self.aws, self.names, self.entrance, patience, poll)
        else:
            await claims.free(self.aws, self.names)

    def _on_attempt(self, names: PoolNames) -> None:
        self.names = names

    def _on_security_group(self, security_group: str) -> None:
        self.entrance = security_group
