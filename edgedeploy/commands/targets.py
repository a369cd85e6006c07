"""``deploy targets [NAME]``: what there is; one profile explained."""

from __future__ import annotations

import click

from edgedeploy.terminal import say_json


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the targets, or explain the one called NAME (a profile, an alias or a .toml file)."""
    from edgedeploy.device_profiles.loader import builtin_names, load_profile

    profiles = [load_profile(name)] if name else [load_profile(item) for item in builtin_names()]
    if as_json:
        dumped = [profile.model_dump(mode="json", by_alias=True, exclude_none=True) for profile in profiles]
        say_json(dumped[0] if name else dumped)
        return
    from edgedeploy.face import show_profile, show_profiles

    if name:
        show_profile(profiles[0])
    else:
        show_profiles(profiles)
