# What the buildx builder puts on a base. Before this comes either the stage `starburst-base` of our own, or the user's
# Dockerfile, whose last stage has that name then. The context `starburst` is a folder that environment/buildx/context.py writes.
#
# Each step takes of that folder only what it needs: what is mounted is the key of a step in docker's cache. Nothing that
# is mounted is in the image. `command -v` is the one thing taken for granted beside a Python: bases have no more.
FROM starburst-base
ARG PYTHON
ARG TARGETARCH
USER 0:0
WORKDIR /
# The first step says why, if there is no Python; the others would not be reached.
RUN --mount=type=bind,from=starburst,source=assemble.py,target=/starburst/assemble.py \
    python="$(command -v python${PYTHON})" \
    || { echo "starburst: the base image has no Python ${PYTHON}, which is yours" >&2; exit 1; }; \
    "$python" -B /starburst/assemble.py system
RUN --mount=type=bind,from=starburst,source=assemble.py,target=/starburst/assemble.py \
    --mount=type=bind,from=starburst,source=${TARGETARCH}/uv,target=/starburst/uv \
    --mount=type=bind,from=starburst,source=${TARGETARCH}/lock.txt,target=/starburst/lock.txt \
    --mount=type=cache,id=starburst-uv-${TARGETARCH},target=/starburst/cache \
    --mount=type=secret,id=starburst-index,target=/starburst/index.json \
    --mount=type=secret,id=starburst-sources,target=/starburst/sources.txt \
    --mount=type=secret,id=starburst-authorities,target=/starburst/authorities.pem \
    /opt/venv/bin/python -B /starburst/assemble.py packages
RUN --mount=type=bind,from=starburst,source=assemble.py,target=/starburst/assemble.py \
    --mount=type=bind,from=starburst,source=${TARGETARCH}/uv,target=/starburst/uv \
    --mount=type=bind,from=starburst,source=own,target=/starburst/own \
    /opt/venv/bin/python -B /starburst/assemble.py own
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/dask \
    VIRTUAL_ENV=/opt/venv \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/dask
STOPSIGNAL SIGTERM
# No shell and no init in between: SIGTERM reaches the worker itself.
ENTRYPOINT []
CMD ["python"]
