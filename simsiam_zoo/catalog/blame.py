"""Which plugin's code an error that nobody foresaw came out of."""

from __future__ import annotations

from simsiam_zoo.catalog.catalog import catalog, is_made
from simsiam_zoo.catalog.discovery import HOST
from simsiam_zoo.catalog.local import local_file
from simsiam_zoo.errors import PluginError, describe_error


def plugin_error(error: BaseException) -> PluginError | None:
    """The error as one that names the plugin in whose code it was raised; None for any other.

    Of several plugins in the traceback it is the innermost one's.
    """
    if not is_made():  # it would tell of broken plugins, in a completion say
        return None
    suppliers = {
        entry.component.target.partition(":")[0].partition(".")[0]: entry.plugin
        for entry in catalog().entries()
        if entry.distribution != HOST
    }
    home, at = "", error.__traceback__
    while at is not None:
        package = str(at.tb_frame.f_globals.get("__name__")).partition(".")[0]
        home = package if package in suppliers else home
        at = at.tb_next
    if not home:
        return None
    plugin = suppliers[home]
    who, hint = f"plugin {plugin.supplier}", "--debug shows the traceback"
    if (file := local_file(plugin.distribution)) is not None:
        who = f"the plugin {file.path}"
    else:
        hint += f"; `simsiam-zoo plugin check {plugin.distribution}` says what the contract asks"
    return PluginError(f"{who} failed: {describe_error(error, home)}", f"{hint}.")
