"""GetLogEvents in pages, as CloudWatch Logs answers it: some are empty although there are more events.

CloudWatch pages by time, so that a period without events is an empty page (github.com/boto/boto3/issues/3718), and a
page holds at most 1 MB. The end is reached when a call returns the token that it was given ("GetLogEvents", API
reference). Here the first page of every stream with events is empty.
"""

from __future__ import annotations

import functools
from typing import Any

from moto.logs.models import LogStream

Page = tuple[list[dict[str, Any]], str | None, str | None]
#: The most events of a page here.
_LARGEST = 1000


def page_by_time() -> None:
    """Patch moto, which returns as many events as were requested."""
    get = LogStream.get_log_events

    @functools.wraps(get)
    def get_log_events(
        self: Any, start_time: Any, end_time: Any, limit: int | None, next_token: str | None, start_from_head: Any
    ) -> Page:
        if next_token is None and self.events:
            # moto's tokens are the indexes of the events around a page.
            return [], f"b/{len(self.events):056d}", f"f/{-1 if start_from_head else len(self.events):056d}"
        size = min(limit or _LARGEST, _LARGEST)
        page: Page = get(self, start_time, end_time, size, next_token, start_from_head)
        return page

    LogStream.get_log_events = get_log_events
