"""The only place that knows boto3: one module a service, narrow and typed."""
