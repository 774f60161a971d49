"""IAM's decisions: who calls, which rights a call needs, and whether a policy grants them."""
