"""A client of container registries: the OCI image and distribution specifications."""
