# The steps of the buildx builder. They follow a stage named `starburst-base`: our own, or the last stage of the user's
# Dockerfile. environment/buildx/context.py writes the context `starburst`.
#
# Each step mounts only the files it needs: they are part of the step's key in docker's cache. Mounted files are not in
# the image. The base needs a Python and a shell with `command -v`, nothing else.
FROM starburst-base
ARG PYTHON
ARG TARGETARCH
USER 0:0
WORKDIR /
# The first step fails with a clear message if the Python is missing.
RUN --mount=type=bind,from=starburst,source=assemble.py,target=/starburst/assemble.py \
    python="$(command -v python${PYTHON})" \
    || { echo "starburst: the base image does not have Python ${PYTHON}, your version" >&2; exit 1; }; \
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
# No shell and no init: the worker receives SIGTERM directly.
ENTRYPOINT []
CMD ["python"]
