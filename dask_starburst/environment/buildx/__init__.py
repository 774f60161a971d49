"""The builder that uses Docker's buildx."""
