"""What runs on each EC2 instance."""
