"""``bilevel campaign``: the story of a campaign."""

from __future__ import annotations

from typing import Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import OUTER_DEFAULT, JsonOption, OuterOption

app = typer.Typer(no_args_is_help=True, help="What the outer loop saw, chose, installed and cost.")


@app.command(epilog=EXIT_CODES)
@polite
async def show(
    campaign: Annotated[
        str, typer.Argument(metavar="CAMPAIGN", help="A campaign's name or id, `latest`, or a run's name.")
    ] = "latest",
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What was seen, considered, chosen and why; what was installed, what it did in numbers, what all of it cost."""
    from clients.campaign_story import document, story
    from clients.cli.resources import print_json
    from clients.outer import OuterClient
    from service_kit.errors import NotFound

    async with OuterClient(outer) as client:
        name = campaign if campaign.startswith("campaigns/") else f"campaigns/{campaign}"
        if campaign == "latest" or campaign.startswith("runs/"):
            known = await client.list_campaigns()
            fitting = [c.name for c in known if campaign == "latest" or c.run == campaign]
            if not fitting:
                raise NotFound("campaign", campaign, hint="Start one with `bilevel run --levels 1,1.5,2`.")
            name = fitting[0]
        head = await client.get_campaign(name)
        events = [event async for event in client.watch_campaign(name, follow=False)]
    if json:
        print_json(document(head, events))
        return
    for line in story(head, events):
        typer.echo(line)
