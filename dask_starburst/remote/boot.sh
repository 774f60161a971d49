#cloud-boothook
#!/bin/sh
# Runs early in every boot, before the ECS agent starts, and takes no time: no packages, no network.
mkdir -p /etc/ecs
cat > /etc/ecs/ecs.config <<'CONFIG'
ECS_CLUSTER=@CLUSTER@
ECS_ENABLE_TASK_IAM_ROLE=true
ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
ECS_CONTAINER_STOP_TIMEOUT=30s
CONFIG
