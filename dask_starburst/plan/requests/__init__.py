"""The content of requests to AWS: pools, task definitions, IAM policies, sizes, zones, quotas."""
