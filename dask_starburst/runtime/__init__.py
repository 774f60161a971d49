"""Code that runs in the scheduler and worker containers and on the EC2 instances."""
