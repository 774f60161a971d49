"""Published AWS prices of us-east-1, newer than those of the packages and used to check them.

Prices are facts of AWS's price list (Linux, on demand, shared tenancy), read from the table that the Karpenter
project generates from it: its version of 2026-02-09 for all families, that of 2026-07-20 for those that a cluster
chooses from by itself. Nothing but numbers is taken over.
"""

from __future__ import annotations

REGION = "us-east-1"


def _table(text: str) -> dict[str, float]:
    entries = (entry.split() for entry in text.replace("\n", " ").split(",") if entry.strip())
    return {name: float(usd) for name, usd in entries}


#: By date: USD an hour of a family's xlarge (4 vCPUs). A family's other sizes cost so much by their size; the fifth and
#: sixth digit are those of the largest size, as AWS rounds the price of each.
XLARGE = {
    "2026-02-09": _table("""
    a1 0.102,
    c4 0.199, c5 0.17, c5a 0.154, c5ad 0.172, c5d 0.192, c5n 0.216, c6gd 0.1536, c6gn 0.1728, c6id 0.2016,
    c6in 0.2268, c7gn 0.2496, c8gb 0.237, c8gn 0.237, c8i-flex 0.17804, c8id 0.22176,
    d2 0.69, d3 0.49944, d3en 0.52572,
    f1 0.825, f2 0.33,
    g3 0.285,
    h1 0.234,
    i3 0.312, i3en 0.452, i4g 0.30888, i4i 0.3432, i7i 0.37752, i7ie 0.5198, i8g 0.3432, i8ge 0.4746,
    im4gn 0.363792, is4gen 0.5763,
    m4 0.2, m5 0.192, m5a 0.172, m5ad 0.206, m5d 0.226, m5dn 0.272, m5n 0.238, m5zn 0.33034, m6a 0.1728,
    m6gd 0.1808, m6i 0.192, m6id 0.2373, m6idn 0.31824, m6in 0.27846, m7gd 0.21357, m8gb 0.291, m8gd 0.23064,
    m8gn 0.291, m8i-flex 0.2011, m8id 0.26104,
    r4 0.266, r5 0.252, r5a 0.226, r5ad 0.262, r5b 0.298, r5d 0.288, r5dn 0.334, r5n 0.298, r6a 0.2268,
    r6g 0.2016, r6gd 0.2304, r6i 0.252, r6id 0.3024, r6idn 0.39078, r6in 0.34866, r7gd 0.27216, r7iz 0.372,
    r8gb 0.36436, r8gd 0.29392, r8gn 0.36436, r8i-flex 0.26394, r8id 0.33264,
    t2 0.1856, t3 0.1664, t3a 0.1504, t4g 0.1344,
    x1 0.416813, x1e 0.834, x2gd 0.334, x2idn 0.416813, x2iedn 0.833625, x2iezn 0.834, x8g 0.3908, x8i 0.43766,
    z1d 0.372,
    vt1 0.216667,
    """),
    "2026-07-20": _table("""
    c6g 0.136, c7g 0.145, c8g 0.15952, c9g 0.17388, c7gd 0.18144, c8gd 0.19596, c6i 0.17, c7i 0.1785,
    c7i-flex 0.169575, c6a 0.153, c7a 0.20528, c8a 0.21554, c8i 0.18742,
    m6g 0.154, m7g 0.1632, m8g 0.17952, m9g 0.19568, m7i 0.2016, m7i-flex 0.19152, m7a 0.23184, m8a 0.24344,
    m8i 0.21168,
    r7g 0.2142, r8g 0.23564, r7i 0.2646, r7a 0.3043, r8a 0.31952, r8i 0.27784,
    """),
}

#: By date: USD an hour of types whose family is not priced by its sizes: what has accelerators is priced by these.
TYPES = {
    "2026-02-09": _table("""
    g4dn.xlarge 0.526, g4dn.2xlarge 0.752, g4dn.4xlarge 1.204, g4dn.8xlarge 2.176, g4dn.12xlarge 3.912,
    g4dn.16xlarge 4.352,
    g5.xlarge 1.006, g5.2xlarge 1.212, g5.4xlarge 1.624, g5.8xlarge 2.448, g5.12xlarge 5.672, g5.16xlarge 4.096,
    g5.24xlarge 8.144, g5.48xlarge 16.288,
    g5g.xlarge 0.42, g5g.2xlarge 0.556, g5g.4xlarge 0.828, g5g.8xlarge 1.372, g5g.16xlarge 2.744,
    g6.xlarge 0.8048, g6.2xlarge 0.9776, g6.4xlarge 1.3232, g6.8xlarge 2.0144, g6.12xlarge 4.6016,
    g6.16xlarge 3.3968, g6.24xlarge 6.6752, g6.48xlarge 13.3504,
    g6e.xlarge 1.861, g6e.2xlarge 2.24208, g6e.4xlarge 3.00424, g6e.8xlarge 4.52856, g6e.12xlarge 10.49264,
    g6e.16xlarge 7.57719, g6e.24xlarge 15.06559, g6e.48xlarge 30.13118,
    g6f.large 0.202, g6f.xlarge 0.2375, g6f.2xlarge 0.475, g6f.4xlarge 0.95,
    g7e.2xlarge 3.36312, g7e.4xlarge 3.99816, g7e.8xlarge 5.26824, g7e.12xlarge 8.28608, g7e.24xlarge 16.57216,
    g7e.48xlarge 33.14432,
    gr6.4xlarge 1.5392, gr6.8xlarge 2.4464, gr6f.4xlarge 1.066,
    inf1.xlarge 0.228, inf1.2xlarge 0.362, inf1.6xlarge 1.18, inf1.24xlarge 4.721,
    inf2.xlarge 0.7582, inf2.8xlarge 1.96786, inf2.24xlarge 6.49063, inf2.48xlarge 12.98127,
    trn1.2xlarge 1.34375, trn1.32xlarge 21.5, trn1n.32xlarge 24.78,
    p4d.24xlarge 21.957642, p4de.24xlarge 27.44705, p5.4xlarge 6.88, p5.48xlarge 55.04, p5en.48xlarge 63.296,
    p6-b200.48xlarge 113.9328,
    """),
}

#: Two sizes that cost other than their size says, in units of the family's xlarge (2026-02-09).
UNITS = {"t2.small": 0.023 / 0.1856, "x8i.96xlarge": 48.74438 / 0.43766}

#: Spot savings over on demand in percent, us-east-1, as AWS's Spot Instance Advisor gave them (aws-facts §4.3).
SAVINGS_DATE = "2025-06"
SAVINGS = {
    "c6g": (59, 71), "c7g": (49, 73), "c8g": (61, 70), "m7g": (62, 64), "m8g": (57, 72),
    "r7g": (67, 71), "r8g": (61, 78),
    "c7i": (59, 66), "c7i-flex": (47, 67), "c7a": (46, 69), "m7i": (52, 68),
}  # fmt: skip

#: Fargate, Linux, us-east-1: USD an hour of a vCPU and of a GB, from AWS's Fargate pricing page as public notes of that
#: day quote it (aws-facts §7 has the same).
FARGATE_DATE = "2026-09-23"
FARGATE = {"x86_64": (0.04048, 0.004445), "arm64": (0.03238, 0.00356)}
