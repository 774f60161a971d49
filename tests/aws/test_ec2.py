"""Launch templates that are created again after deletion."""

from __future__ import annotations

import asyncio
from typing import Any

from dask_starburst.aws.ec2 import ensure_launch_template, remove_launch_templates
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS

NAME, TAG = "starburst-00000000-0-head", "starburst:pool"


def test_a_deleted_launch_template_is_created_again(aws: LocalAWS) -> None:
    tokens: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        tokens.append(params["body"]["ClientToken"])

    session = aws.session()
    session.events.register("before-call.ec2.CreateLaunchTemplate", note)
    ours = AWS(session=session)

    async def make_and_remove() -> None:
        await ensure_launch_template(ours, NAME, {"UserData": ""}, {TAG: NAME})
        await remove_launch_templates(ours, TAG, NAME)

    for _ in range(2):
        asyncio.run(make_and_remove())
    ours.close()
    first, second = tokens
    assert first != second
    assert aws.client("ec2").describe_launch_templates()["LaunchTemplates"] == []
