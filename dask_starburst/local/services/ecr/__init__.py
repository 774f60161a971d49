"""ECR of the embedded AWS, with its registry."""
