"""Import this before moto.

moto's EC2 lists AWS's regions with four sessions, each of which loads all endpoints. With one shared session the
embedded AWS starts half a second sooner. Also, moto's server would allow web pages to read every answer (CORS).
"""

from __future__ import annotations

import os
from functools import cache

import boto3

os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"

_Session = boto3.Session
boto3.Session = cache(_Session)  # only during this import
try:
    from moto.ec2.models import availability_zones_and_regions  # noqa: F401  # what asks for them
finally:
    boto3.Session = _Session
