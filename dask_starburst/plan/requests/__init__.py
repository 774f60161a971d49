"""What is requested of AWS: pools, task definitions, IAM policies, sizes, zones, quotas."""
