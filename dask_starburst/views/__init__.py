"""One report of a cluster, drawn as text and as HTML."""
