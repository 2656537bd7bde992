"""The one table of routes. A new route is one line here and one method of its class."""

from __future__ import annotations

from orthanc_transfers.rest.http import Route, RouteTable
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.plugin_routes import PluginRoutes
from orthanc_transfers.rest.user_routes import UserRoutes

# Identifiers of instances, transactions and jobs: nothing that could mean something to a file system.
_ID = "([.0-9a-f-]+)"


def routes(active: UserRoutes, passive: PeerRoutes, identification: PluginRoutes) -> RouteTable:
    """All routes of the plugin; patterns match whole paths."""
    return (
        Route("/plugins", {"GET": identification.list_plugins}),
        Route("/plugins/explorer.js", {"GET": identification.explorer}),
        Route("/plugins/transfers", {"GET": identification.describe}),
        Route("/transfers/send", {"POST": active.send}),
        Route("/transfers/pull", {"POST": active.pull}),
        Route("/transfers/peers", {"GET": active.list_peers}),
        Route("/transfers/lookup", {"POST": passive.lookup}),
        Route(f"/transfers/chunks/{_ID}", {"GET": passive.get_chunks}),
        Route("/transfers/push", {"POST": passive.create_push}),
        Route(f"/transfers/push/{_ID}", {"DELETE": passive.drop_push}),
        Route(f"/transfers/push/{_ID}/([0-9]+)", {"PUT": passive.put_bucket}),
        Route(f"/transfers/push/{_ID}/commit", {"POST": passive.commit_push}),
        Route("/transfers/capabilities", {"GET": passive.capabilities}),
        Route("/transfers/v2/push", {"POST": passive.create_push_2}),
        Route(
            f"/transfers/v2/push/{_ID}",
            {"GET": passive.push_status, "DELETE": passive.drop_push},
        ),
        Route(f"/transfers/v2/push/{_ID}((?:/[0-9]+/[0-9]+)+)", {"PUT": passive.put_ranges}),
        Route(f"/transfers/v2/push/{_ID}/commit", {"POST": passive.commit_push_2}),
        Route("/transfers/v2/chunks", {"POST": passive.post_chunks}),
        Route(f"/transfers/reports/{_ID}", {"GET": passive.report}),
    )
