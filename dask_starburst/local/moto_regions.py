"""To be imported before moto's EC2, which lists AWS's regions with four sessions; each reads all endpoints anew.

With one session for all of them the embedded AWS starts half a second sooner.
"""

from __future__ import annotations

from functools import cache

import boto3

_Session = boto3.Session
boto3.Session = cache(_Session)  # for the time of this import alone
try:
    from moto.ec2.models import availability_zones_and_regions  # noqa: F401  # what asks for them
finally:
    boto3.Session = _Session
