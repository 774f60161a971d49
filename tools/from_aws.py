from tools.offered import Offered


def offered(regions):
    raise NotImplementedError
