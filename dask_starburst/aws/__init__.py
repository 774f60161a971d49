"""The only package that uses boto3: one module per service, narrow and typed."""
