"""``bilevel campaign``: which campaigns there are, and the story of one."""

from __future__ import annotations

from typing import Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, InnerOption, JsonOption, OuterOption

app = typer.Typer(no_args_is_help=True, help="What the outer loop saw, chose, installed and cost.")


@app.command(name="list", epilog=EXIT_CODES)
@polite
async def list_(
    limit: Annotated[int, typer.Option(min=1, help="Newest campaigns to show.")] = 20,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """List campaigns, newest first."""
    from bilevel.v1 import outer_pb2

    from clients import wording
    from clients.cli.listing import answered_by, print_table
    from clients.cli.resources import print_json
    from clients.outer import OuterClient
    from clients.report.export import head_json

    async with OuterClient(outer) as client:
        found = await client.list_campaigns(limit)
    if json:
        print_json([head_json(campaign) for campaign in found])
        return
    if not found:
        typer.echo("There are no campaigns yet. Start one with `bilevel run --levels 1,1.5,2`.")
        return

    def cells(item: outer_pb2.Campaign) -> list[str]:
        state = wording.member(outer_pb2.CampaignState.Name(item.state), "CAMPAIGN_STATE_")
        counts = [str(item.cycles), str(item.installed_mechanisms)]
        return [item.name, item.run, state, *counts, answered_by(item)]

    print_table(found, ("campaign", "run", "state", "cycles", "installed", "answered by"), cells)


@app.command(epilog=EXIT_CODES)
@polite
async def show(
    campaign: Annotated[
        str, typer.Argument(metavar="CAMPAIGN", help="A campaign's name or id, `latest`, or its run's.")
    ] = "latest",
    outer: OuterOption = OUTER_DEFAULT,
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What was seen, considered, chosen and why; what was installed, what it did in numbers, what all of it cost."""
    from clients.campaign_story import document, story
    from clients.cli.resources import find_campaign, print_json
    from clients.inner import InnerClient
    from clients.outer import OuterClient

    async with OuterClient(outer) as client, InnerClient(inner) as inner_client:
        name = await find_campaign(client, inner_client, campaign)
        head = await client.get_campaign(name)
        events = [event async for event in client.watch_campaign(name, follow=False)]
    if json:
        print_json(document(head, events))
        return
    for line in story(head, events):
        typer.echo(line)
