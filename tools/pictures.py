"""Draw the output of commands for the documentation: ``docs/pictures/*.svg``.

The pictures are made from the bundled catalogue and from fixed values, so they are the same everywhere. A test checks
them.

    python tools/pictures.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI

from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import quota_of
from dask_starburst.cli.advise import as_renderable, candidates
from dask_starburst.cluster.quote import offline
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.plan.money import advice
from dask_starburst.plan.money.idle import Kept, idle_bill
from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.garbage import GroupFound, PoolFound
from dask_starburst.plan.requests.quotas import Standing
from dask_starburst.settings import Settings
from dask_starburst.views import quote, status

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH = 104
# rich's own SVG loads a font from the network; the documentation loads nothing.
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
SVG = f"""<svg class="rich-terminal" viewBox="0 0 {{width}} {{height}}" xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{ font-family: {_FONT}; font-size: {{char_height}}px; line-height: {{line_height}}px; }}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal">
<rect x="0" y="0" width="{{terminal_width}}" height="{{terminal_height}}" />
</clipPath>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})" clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""


def plan() -> RenderableType:
    """``starburst plan --workers 20 --max-hourly-cost 2``, without credentials."""
    settings = Settings.load(region="us-east-1", n_workers=20, money={"max_hourly_cost": 2.0})
    return quote.as_renderable(asyncio.run(offline(blueprint(settings, ""))))


def in_account() -> RenderableType:
    """``starburst status`` where a cluster runs and two images are kept."""
    spot, head = ("c7g.xlarge",) * 3 + ("c6g.xlarge",), ("m7g.medium",)
    groups = (
        GroupFound("starburst-1c9e01f4-0-spot", 4, True, spot, 1000.0),
        GroupFound("starburst-1c9e01f4-0-head", 1, False, head, 1000.0),
    )
    pool = PoolFound("starburst-1c9e01f4-0", groups, Claim("session", "ada", "", 0.0), 0.0)
    kept = Kept(image_bytes=412_000_000, images=2, log_bytes=38_000_000)
    used = {Market.ON_DEMAND: 1, Market.SPOT: 16}
    quotas = tuple(Standing(quota, 64, vcpus) for market, vcpus in used.items() if (quota := quota_of(head[0], market)))
    found = status.Status(
        "us-east-1", (pool,), idle_bill(kept), (), "123456789012", quotas, status.Spent(12.34, clusters=9)
    )
    return status.as_renderable(found)


def ranking() -> RenderableType:
    """``starburst advise --vcpus 4 --memory "7 GiB"``, without credentials."""
    need = advice.Need(4, 7 * advice.GIB)
    found = candidates(PriceBook("us-east-1", cache=Path("does-not-exist")), need, Market.SPOT, {})
    return as_renderable(advice.rank(found)[:12], "us-east-1", "price")


PICTURES: dict[str, tuple[str, Callable[[], RenderableType]]] = {
    "plan": ("starburst plan --workers 20 --max-hourly-cost 2", plan),
    "advise": ('starburst advise --vcpus 4 --memory "7 GiB" --top 12', ranking),
    "status": ("starburst status", in_account),
}


def draw(name: str) -> str:
    """Return one picture as SVG."""
    title, make = PICTURES[name]
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(make())
    return console.export_svg(title=f"$ {title}", theme=MONOKAI, code_format=SVG, unique_id=name)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8")


if __name__ == "__main__":
    main()
