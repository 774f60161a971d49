"""The report of a cluster, as text and as HTML."""
