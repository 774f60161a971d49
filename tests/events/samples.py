"""One event or more of each kind, with its level and its sentence."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dask_starburst import events as e

NOON = 43_200.0

SAMPLES: list[tuple[e.Event, int, str]] = [
    (e.WorkerReady(name=3, instance="i-1", seconds=2.34), INFO, "worker 3 is up (2.3 s after placement)"),
    (
        e.WorkerReady(name="scheduler", instance="i-0", seconds=5.0),
        INFO,
        "the scheduler is up (5.0 s after placement)",
    ),
    (e.WorkerRetiring(name=3), INFO, "worker 3 is transferring its data and will close"),
    (
        e.WorkerRetired(name=3),
        INFO,
        "worker 3 was retired by retire_workers(); not replacing it until scale() or adapt()",
    ),
    (e.WorkerStopped(name=3, instance="i-1"), INFO, "worker 3 has stopped"),
    (
        e.WorkerLost(name=3, reason="its instance is gone", instance="i-1"),
        WARNING,
        "worker 3 lost: its instance is gone; replacing it.",
    ),
    (
        e.WorkerLost(name=3, reason="out of memory", instance="i-1", advice="Give it more memory."),
        WARNING,
        "worker 3 lost: out of memory; replacing it. Give it more memory.",
    ),
    (e.WorkerStartFailed(name=3, reason="no image", final=False, text="It failed."), WARNING, "It failed."),
    (e.WorkerStartFailed(name=3, reason="no image", final=True, text="It failed."), ERROR, "It failed."),
    (
        e.WorkerDelayed(name=3, reason="its instance is gone"),
        WARNING,
        "worker 3 was ended by AWS: its instance is gone; restarting it",
    ),
    (e.WorkerRetried(name=3), INFO, "worker 3 was given up; retrying it after its rest"),
    (
        e.WorkerFallback(name=3, placement="on-demand", before="spot"),
        WARNING,
        "worker 3 falls back to on-demand: no spot capacity (no instance was launched in time)",
    ),
    (
        e.WorkerFallback(name=3, placement="on-demand", before="spot", reason="no capacity"),
        WARNING,
        "worker 3 falls back to on-demand: no spot capacity (no capacity)",
    ),
    (
        e.TaskRefused(name="scheduler", reason="ECS refused its task: AGENT", passing=True),
        INFO,
        "the scheduler waits: ECS refused its task: AGENT; retrying",
    ),
    (
        e.TaskRefused(name=3, reason="ECS refused its task: ATTRIBUTE", passing=False),
        WARNING,
        "worker 3 waits: ECS refused its task: ATTRIBUTE; retrying",
    ),
    (
        e.TaskUnrunnable(restriction="GPU", text="1 task needs a GPU."),
        WARNING,
        "1 task needs a GPU.",
    ),
    (
        e.SpotInterruption(name=3, instance="i-1", type="c7g.xlarge", seconds=120.0, replaced=True),
        WARNING,
        "worker 3 is leaving: Spot interruption of i-1 (c7g.xlarge) in 120 s; it transfers its data and is replaced",
    ),
    (
        e.SpotInterruption(name=3, instance="", type="", seconds=0.0, replaced=False),
        WARNING,
        "worker 3 is leaving: Spot interruption of its instance in 0 s; it is retiring already",
    ),
    (
        e.SpotRebalance(name=3, instance="i-1", type="c7g.xlarge", ignored=True, why="on_rebalance is 'ignore'"),
        INFO,
        "worker 3 has a rebalance recommendation for i-1 (c7g.xlarge): ignored: on_rebalance is 'ignore'",
    ),
    (
        e.SpotRebalance(name=3, instance="i-1", type="c7g.xlarge", ignored=False),
        WARNING,
        "worker 3 has a rebalance recommendation for i-1 (c7g.xlarge): replacing it before it is retired",
    ),
    (
        e.WorkerLeaving(name=3, instance="i-1", type="c7g.xlarge"),
        WARNING,
        "worker 3 is leaving: i-1 (c7g.xlarge) is drained or stopped; it transfers its data and is replaced",
    ),
    (
        e.WorkerMovesBack(name=3, placement="spot"),
        INFO,
        "worker 3 moves back to spot once an instance is available there",
    ),
    (
        e.InstanceLaunched(instance="i-1", type="c7g.xlarge", market="spot", placement="spot", group="default"),
        INFO,
        "instance i-1 (c7g.xlarge, spot) is booting",
    ),
    (
        e.InstanceLaunched(
            instance="i-1", type="c7g.xlarge", market="on-demand", placement="head", group="head", warm=True
        ),
        INFO,
        "instance i-1 (c7g.xlarge, on-demand) is warm and ready for a task",
    ),
    (e.InstanceConnected(instance="i-1", placement="head"), INFO, "instance i-1 is ready for the scheduler"),
    (e.InstanceConnected(instance="i-1", placement="spot"), INFO, "instance i-1 is ready for a worker"),
    (
        e.InstanceTimestamps(instance="i-1", launched=NOON, ended=None, zone="us-east-1a", taken=True),
        DEBUG,
        "instance i-1 was launched in us-east-1a and interrupted",
    ),
    (
        e.InstanceTimestamps(instance="i-1", launched=NOON, ended=NOON, zone="us-east-1a", taken=False),
        DEBUG,
        "instance i-1 was launched in us-east-1a",
    ),
    (
        e.InstanceGivenUp(instance="i-1", type="c7g.xlarge", reason="its agent is lost", seen=True),
        WARNING,
        "instance i-1 (c7g.xlarge) is given up: its agent is lost; requesting another one.",
    ),
    (
        e.InstanceGivenUp(instance="i-1", type="c7g.xlarge", reason="it did not connect", seen=False),
        WARNING,
        "instance i-1 (c7g.xlarge) is given up: it did not connect; requesting another one. If this repeats: can the"
        " subnet reach ECS (a public subnet, NAT or endpoints), and does the instance role allow"
        " ecs:RegisterContainerInstance?",
    ),
    (e.InstanceTerminated(instance="i-1"), INFO, "instance i-1 is terminated"),
    (e.CapacityRequested(placement="spot", desired=1), INFO, "group spot: requested 1 instance"),
    (e.CapacityRequested(placement="spot", desired=2), INFO, "group spot: requested 2 instances"),
    (
        e.TypesChosen(placement="spot", types=("c7g.xlarge", "m7g.xlarge")),
        DEBUG,
        "group spot: launching only c7g.xlarge, m7g.xlarge from now on",
    ),
    (
        e.LaunchFailed(placement="spot", type="c7g.xlarge", why="capacity", text="No capacity."),
        WARNING,
        "No capacity.",
    ),
    (
        e.QuotaShort(pool="p", workers=1, requested=2, text="Only 1 of 2 workers fits."),
        WARNING,
        "Only 1 of 2 workers fits. Until then the other workers wait.",
    ),
    (e.QuotaShort(pool="p", workers=0, requested=0, text="No worker fits."), WARNING, "No worker fits."),
    (
        e.QuotaUnknown(region="us-east-1", why="the call is denied."),
        INFO,
        "vCPU quotas are unknown, launching without a check: the call is denied.",
    ),
    (
        e.SparesRequested(pool="p", type="c7g.xlarge", count=1, text="1 spare c7g.xlarge is kept ready"),
        INFO,
        "1 spare c7g.xlarge is kept ready",
    ),
    (
        e.CostSoFar(pool="p", usd=0.5, usd_per_hour=2.0),
        INFO,
        "pool p has cost $0.5000 so far and costs $2.0000 an hour now",
    ),
    (
        e.BudgetWarning(pool="p", setting="max_total_cost", limit=5.0, usd=4.0, usd_per_hour=2.0),
        WARNING,
        "the cluster has cost $4.0000 of max_total_cost=5; at $2.0000 an hour it closes in 30 minutes",
    ),
    (
        e.BudgetWarning(pool="p", setting="max_total_cost", limit=5.0, usd=4.0, usd_per_hour=0.0),
        WARNING,
        "the cluster has cost $4.0000 of max_total_cost=5; at $0.0000 an hour it closes once instances run again",
    ),
    (
        e.BudgetWarning(pool="p", setting="cost_alert_threshold", limit=1.5, usd=4.0, usd_per_hour=2.0),
        WARNING,
        "the cluster costs up to $2.0000 an hour, more than cost_alert_threshold=1.5",
    ),
    (
        e.WorkersOverBudget(pool="p", workers=1, usd_per_hour=2.0, text="1 worker waits"),
        WARNING,
        "1 worker waits",
    ),
    (e.WorkersFreed(pool="p"), INFO, "no worker is over budget any more"),
    (e.AccountSetup(region="us-east-1"), INFO, "setting up the account in us-east-1"),
    (
        e.RolesUnseen(roles="starburst-a, starburst-b", error="AWS denies iam:GetRole."),
        INFO,
        "assuming that an administrator has created starburst-a, starburst-b, which AWS does not show: AWS denies"
        " iam:GetRole.",
    ),
    (
        e.StartDelayed(operation="ecs:CreateCluster", what="the role", error="It failed.", limit=60.0),
        INFO,
        "waiting up to 60 s for AWS to show the role everywhere: It failed.",
    ),
    (e.PoolClaimed(pool="p"), INFO, "claimed pool p"),
    (e.PoolClaimed(pool="p", instances=2), INFO, "claimed pool p with 2 warm instances"),
    (
        e.PoolKeptWarm(pool="p", instances=2, until=NOON, kept="2 c7g.xlarge spot, until 12:00:00 UTC"),
        INFO,
        "pool p is kept warm for the next cluster: 2 c7g.xlarge spot, until 12:00:00 UTC. AWS terminates its instances"
        " then; `starburst pool stop p` terminates them now",
    ),
    (e.PoolLeft(pool="p", why="AWS did not answer."), ERROR, "pool p was not released: AWS did not answer."),
    (
        e.PoolLeft(pool="p", why="AWS did not answer.", lease=NOON),
        ERROR,
        "pool p was not released: AWS did not answer; its lease terminates its instances at 12:00:00 UTC at the latest",
    ),
    (e.LeaseRenewed(pool="p", until=NOON), DEBUG, "lease renewed until 12:00:00 UTC"),
    (
        e.CallFailed(pool="p", error="AWS is away.", outage=True),
        WARNING,
        "AWS is away. Retrying; nothing is lost.",
    ),
    (e.CallFailed(pool="p", error="AWS denies it.", outage=False), WARNING, "AWS denies it."),
    (e.OutageEnded(pool="p", seconds=12.4), INFO, "AWS is available again after 12 s; the cluster continues"),
    (
        e.CredentialsRefused(pool="p", error="They have expired.", lease=NOON),
        WARNING,
        "They have expired. The cluster continues and reloads its credentials; its lease ends at 12:00:00 UTC",
    ),
    (e.CredentialsAccepted(pool="p"), INFO, "AWS accepts the credentials again"),
    (
        e.ImageFound(tag="t", digest="sha256:0", age_days=3.2),
        INFO,
        "nothing has changed: using the existing image, 3 days old",
    ),
    (
        e.ImageFound(tag="t", digest="sha256:0", age_days=3.2, refreshed_days=30),
        INFO,
        "nothing has changed: image pushed again before ECR expires it, for 30 more days",
    ),
    (
        e.ImageFound(tag="t", digest="sha256:0", age_days=20.0, days_left=10.2),
        WARNING,
        "nothing has changed: using the existing image, 20 days old; ECR deletes it in 10 days unless a later launch"
        " refreshes it. A cluster that runs longer could not add workers after that: run `starburst image refresh` to"
        " refresh it now",
    ),
    (
        e.ImageBuilding(
            tag="t",
            origin="uv.lock",
            packages=7,
            platforms=("linux/amd64", "linux/arm64"),
            base="python:3.12-slim",
            builder="direct",
        ),
        INFO,
        "building an image of uv.lock: 7 packages for linux/amd64 and linux/arm64, on python:3.12-slim",
    ),
    (e.ImageProgress(tag="t", step="pushing"), INFO, "image: pushing"),
    (
        e.ImageProgress(tag="t", step="layer 1 of 2 built", platform="linux/arm64", pushed=1_000_000, total=2_500_000),
        INFO,
        "image: layer 1 of 2 built; pushed 1.0 MB of 2.5 MB so far",
    ),
    (
        e.ImageBuilt(tag="t", repository="r", digest="sha256:0", bytes=2_500_000, seconds=12.4),
        INFO,
        "image r:t built and pushed in 12 s; 2.5 MB uploaded",
    ),
    (e.ImageNote(origin="uv.lock", text="uv.lock: a note"), INFO, "uv.lock: a note"),
    (e.ImageNote(origin="uv.lock", text="is the name right?", warning=True), WARNING, "is the name right?"),
    (
        e.ImageUnchecked(image="a/b:c", why="a did not answer."),
        WARNING,
        "the image a/b:c is used without a check: a did not answer.",
    ),
    (
        e.ImageUnchecked(image="a/b:c", why="httpx is missing.", warning=False),
        INFO,
        "the image a/b:c is used without a check: httpx is missing.",
    ),
    (
        e.AdaptiveStopped(cluster="c", n=3, minimum=0, maximum=50),
        INFO,
        "scale(3) stops adaptive scaling (0 to 50 workers); adapt() starts it again",
    ),
    (
        e.WaitExceedsMaximum(cluster="c", n=3, maximum=2),
        WARNING,
        "wait_for_workers(3) waits for more workers than adaptive scaling allows: maximum=2. Call adapt(maximum=3) or"
        " scale(3)",
    ),
    (
        e.DaskError(pool="p", action="Retire(worker=3)", error="OSError('gone')"),
        WARNING,
        "Retire(worker=3) failed: OSError('gone')",
    ),
    (e.ClusterFailed(pool="p", error="the lease expired"), ERROR, "the lease expired"),
    (
        e.ClusterClosed(cluster="c", usd=0.5, cost="$0.5000 (a list)"),
        INFO,
        "cluster c is closed; it cost $0.5000 (a list)",
    ),
    (
        e.ConfigurationLeftOut(names="my.token", text="my.token (its name looks like that of a secret)"),
        WARNING,
        "the scheduler and the workers do not get this part of your Dask configuration: my.token (its name looks like"
        " that of a secret)",
    ),
    (
        e.HookFailed(cluster="c", hook="MyHook", method="on_ready", error="KeyError('x')"),
        WARNING,
        "on_ready of the hook MyHook failed: KeyError('x')",
    ),
    (e.HookMessage(kind="my-kind", subject="it", text="It happened."), INFO, "It happened."),
    (e.HookMessage(kind="my-kind", subject="it", text="It happened.", level=WARNING), WARNING, "It happened."),
]
