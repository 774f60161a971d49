"""Images: their recipe, their lifetime in ECR, and the versions that have to match."""
