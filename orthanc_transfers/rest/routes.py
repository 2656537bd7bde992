"""The one table of routes. A new route is one line here and one method of its class."""

from __future__ import annotations

from orthanc_transfers.core import paths
from orthanc_transfers.rest.http import Route, RouteTable
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.plugin_routes import PluginRoutes
from orthanc_transfers.rest.user_routes import UserRoutes

# Identifiers of instances, transactions and jobs: nothing that could mean something to a file system.
_ID = "([.0-9a-f-]+)"
_PUSH_V1 = paths.push_v1(_ID)
_PUSH_V2 = paths.push_v2(_ID)


def routes(active: UserRoutes, passive: PeerRoutes, identification: PluginRoutes) -> RouteTable:
    """All routes of the plugin; patterns match whole paths."""
    return (
        Route(paths.PLUGINS, {"GET": identification.list_plugins}),
        Route(paths.EXPLORER_SCRIPT, {"GET": identification.explorer}),
        Route(paths.PLUGIN, {"GET": identification.describe}),
        Route(paths.SEND, {"POST": active.send}),
        Route(paths.PULL, {"POST": active.pull}),
        Route(paths.PEERS, {"GET": active.list_peers}),
        Route(paths.LOOKUP, {"POST": passive.lookup}),
        Route(f"{paths.CHUNKS_V1}/{_ID}", {"GET": passive.get_chunks}),
        Route(paths.PUSH_V1, {"POST": passive.create_push_v1}),
        Route(_PUSH_V1, {"DELETE": passive.drop_push}),
        Route(paths.bucket(_PUSH_V1, "([0-9]+)"), {"PUT": passive.put_bucket}),
        Route(paths.commit(_PUSH_V1), {"POST": passive.commit_push_v1}),
        Route(paths.CAPABILITIES, {"GET": passive.capabilities}),
        Route(paths.PUSH_V2, {"POST": passive.create_push_v2}),
        Route(
            _PUSH_V2,
            {"GET": passive.push_status, "DELETE": passive.drop_push},
        ),
        Route(_PUSH_V2 + "((?:/[0-9]+/[0-9]+)+)", {"PUT": passive.put_ranges}),
        Route(paths.commit(_PUSH_V2), {"POST": passive.commit_push_v2}),
        Route(paths.CHUNKS_V2, {"POST": passive.post_chunks}),
        Route(paths.report(_ID), {"GET": passive.report}),
    )
