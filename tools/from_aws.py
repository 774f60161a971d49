def offered(regions):
    raise NotImplementedError
