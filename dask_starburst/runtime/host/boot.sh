#cloud-boothook
#!/bin/sh
# Runs early in every boot, before the ECS agent starts. It is fast: no packages, no network.
root=${STARBURST_ROOT:-} # for tests of what this writes
mkdir -p "$root/etc/ecs" "$root/etc/systemd/system" "$root/opt/starburst"
cat > "$root/etc/ecs/ecs.config" <<'CONFIG'
ECS_CLUSTER=@CLUSTER@
ECS_ENABLE_TASK_IAM_ROLE=true
ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
ECS_CONTAINER_STOP_TIMEOUT=30s
CONFIG

# The reaper terminates this instance when it has had no task for too long.
cat > "$root/opt/starburst/reaper.py" <<'REAPER'
@REAPER@
REAPER
cat > "$root/etc/systemd/system/starburst-reaper.service" <<'SERVICE'
[Unit]
Description=Terminate this instance when it has had no ECS task for @IDLE_LIMIT@ s

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I /opt/starburst/reaper.py --idle-limit @IDLE_LIMIT@ --group @GROUP@
TimeoutStartSec=60
# Also to the console, whose output can be read after the instance has terminated.
StandardOutput=journal+console
SERVICE
cat > "$root/etc/systemd/system/starburst-reaper.timer" <<'TIMER'
[Unit]
Description=Check every 30 s whether this instance has an ECS task

[Timer]
OnBootSec=30s
OnUnitInactiveSec=30s
AccuracySec=1s

[Install]
WantedBy=timers.target
TIMER
# --no-block: else the boot and this script would wait for each other.
systemctl enable --now --no-block starburst-reaper.timer
