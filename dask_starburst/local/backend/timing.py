"""How long each step takes, in virtual seconds.

With the profile ``none`` every step takes no time, for tests of other things: due actions run at once, in the same
order. The profile ``fast`` has small constants, for tests. The profile ``realistic`` draws from
distributions based on published measurements and documentation; each line
names its evidence: P published measurement, D documented behaviour, U unverified
guess. Label every figure made with it *simulated*.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Literal, get_args

Step = Literal[
    "reconcile",  # a group was changed -> its instances are launched
    "pending",  # instance pending -> running
    "boot",  # running -> container instance registered
    "agent",  # registered -> agent connected
    "placement",  # task placed -> its agent receives it
    "pull",  # image pull and start of the container
    "cached",  # start of a container whose image is cached
    "signal",  # StopTask -> SIGTERM
    "shutdown",  # instance shutting-down -> terminated
    "deregister",  # terminated -> container instance gone
    "health",  # instance terminated outside its group -> the group notices
    "schedule",  # scheduled action due -> executed
    "interface",  # awsvpc task placed on EC2 -> its network interface is attached
    "fargate host",  # task accepted by Fargate -> its host and network interface are ready
    "fargate start",  # host ready -> container runs, image pull included
    "deprovision",  # containers of an awsvpc task ended -> its network interface is deleted
    "role",  # service-linked role created -> its service can assume it
    "parameter",  # SSM parameter deleted -> its name can be used again
    "bootstrap",  # instance booted -> Docker installed by its user data
]
Profile = Literal["none", "fast", "realistic"]
Draw = Callable[[random.Random], float]


def _constant(value: float) -> Draw:
    return lambda rng: value


def _lognormal(median: float, sigma: float, shift: float = 0.0) -> Draw:
    return lambda rng: shift + rng.lognormvariate(math.log(median), sigma)


def _uniform(low: float, high: float) -> Draw:
    return lambda rng: rng.uniform(low, high)


def _sum(*draws: Draw) -> Draw:
    return lambda rng: sum(draw(rng) for draw in draws)


def _sometimes(probability: float, draw: Draw) -> Draw:
    return lambda rng: draw(rng) if rng.random() < probability else 0.0


PROFILES: Mapping[Profile, Mapping[Step, Draw]] = {
    "fast": {
        "reconcile": _constant(0.05),
        "pending": _constant(0.2),
        "boot": _constant(0.3),
        "agent": _constant(0.2),
        "placement": _constant(0.02),
        "pull": _constant(0.1),
        "cached": _constant(0.05),
        "signal": _constant(0.02),
        "shutdown": _constant(0.3),
        "deregister": _constant(0.3),
        "health": _constant(0.2),
        "schedule": _constant(0.05),
        "interface": _constant(0.05),
        "fargate host": _constant(0.1),
        "fargate start": _constant(0.2),
        "deprovision": _constant(0.1),
        "role": _constant(0.2),
        "parameter": _constant(0.3),
        "bootstrap": _constant(0.2),
    },
    "none": {step: _constant(0.0) for step in get_args(Step)},
    "realistic": {
        "reconcile": _lognormal(4.0, 0.60, 1.0),  # U reconcile after SetDesiredCapacity
        "pending": _lognormal(4.5, 0.40, 0.5),  # P 4.9 s from pending to running (daemonology)
        "boot": _sum(
            # P 10, 11, 12, 16 s from pending to the kernel, less the 5 s until "running"
            _lognormal(3.2, 0.45, 3.0),
            _sometimes(0.03, _uniform(10.0, 45.0)),  # P bimodal; its weight is U
            _lognormal(6.0, 0.40, 12.0),  # U AL2023 userspace, between two measured EKS images
            _lognormal(2.0, 0.40, 3.0),  # D first boot loads the agent's image; duration U
        ),
        "agent": _lognormal(0.5, 0.40, 0.2),  # P the same second (amazon-ecs-agent#2309)
        "placement": _uniform(0.3, 1.0),  # U
        "pull": _sum(
            _lognormal(7.5, 0.35, 1.0),  # D 10-20 s for larger images, gzip
            _lognormal(0.7, 0.40, 0.4),  # P task start with a cached image 1-5 s
        ),
        "cached": _lognormal(0.7, 0.40, 0.4),  # P the same
        "signal": _lognormal(0.4, 0.40, 0.1),  # U
        "shutdown": _lognormal(20.0, 0.50, 5.0),  # U
        "deregister": _lognormal(20.0, 0.60, 5.0),  # U
        "health": _uniform(5.0, 60.0),  # U health checks come about once a minute
        "schedule": _uniform(0.5, 5.0),  # D "within seconds"
        "interface": _lognormal(3.0, 0.40, 1.0),  # D "several seconds" (ECS task recommendations); duration U
        # P 45 s, 60 s at 250 MB, 60-90 s in total; the split between the two is U
        "fargate host": _constant(8.0),
        "fargate start": _lognormal(38.0, 0.30),
        "deprovision": _lognormal(8.0, 0.50, 2.0),  # U
        "role": _lognormal(10.0, 0.40, 2.0),  # P "10 s and more" (terraform-provider-aws#15457); its spread is U
        "parameter": _constant(30.0),  # D "wait for at least 30 seconds" (SSM, DeleteParameter)
        "bootstrap": _constant(50.0),  # U apt-get update and install of Docker; with the pull about 60 s
    },
}


class Timing:
    """Draws the duration of each step, reproducibly.

    Parameters
    ----------
    profile : {"none", "fast", "realistic"}
        The distributions to draw from.
    seed : int
        The same seed draws the same durations. Each step has its own stream, so an additional
        step of one kind does not change the others.
    """

    def __init__(self, profile: Profile = "fast", seed: int = 0) -> None:
        self.profile = profile
        self._draws = PROFILES[profile]
        self._streams = {step: random.Random(f"{seed}/{step}") for step in self._draws}

    def seconds(self, step: Step) -> float:
        """Draw the duration of a step in virtual seconds."""
        return self._draws[step](self._streams[step])
