
# Instances of a warm pool boot once before they are needed, and must not take tasks then. The agent's own way
# (ECS_WARM_POOLS_CHECK) asks once a minute (amazon-ecs-agent, agent/app/agent.go): longer than such a boot takes.
cat > "$root/opt/starburst/in-service.sh" <<'WAIT'
url=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254/}latest
ask() { curl --silent --fail --max-time 2 --noproxy '*' "$@"; }
state() {
  token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$url/api/token") &&
  ask -H "X-aws-ec2-metadata-token: $token" "$url/meta-data/autoscaling/target-lifecycle-state"
}
until [ "$(state)" = InService ]; do sleep 1; done
WAIT
mkdir -p "$root/etc/systemd/system/ecs.service.d"
cat > "$root/etc/systemd/system/ecs.service.d/starburst.conf" <<'DROPIN'
[Service]
ExecStartPre=/bin/sh /opt/starburst/in-service.sh
TimeoutStartSec=infinity
DROPIN
