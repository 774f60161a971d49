"""What runs on the other side: in the containers and on the instances."""
