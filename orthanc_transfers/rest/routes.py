"""The one table of routes. A new route is one row here and one method of its class."""

from __future__ import annotations

from functools import partial

from orthanc_transfers.core import paths
from orthanc_transfers.rest.action_routes import ActionRoutes
from orthanc_transfers.rest.extras_routes import ExtrasRoutes
from orthanc_transfers.rest.http import Route, RouteTable
from orthanc_transfers.rest.measure_routes import MeasureRoutes
from orthanc_transfers.rest.own_site import no_foreign_forms, own_site
from orthanc_transfers.rest.page_routes import PageRoutes
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.plugin_routes import PluginRoutes
from orthanc_transfers.rest.rule_routes import RuleRoutes
from orthanc_transfers.rest.search_routes import SearchRoutes
from orthanc_transfers.rest.settings_routes import SettingsRoutes
from orthanc_transfers.rest.status_routes import StatusRoutes
from orthanc_transfers.rest.transcoding_routes import TranscodingRoutes
from orthanc_transfers.rest.user_routes import UserRoutes

# Identifiers of instances, pushes and jobs: no character that means something to a file system.
_ID = "([.0-9a-f-]+)"
_RULE = "([^/]+)"
_NUMBER = "([0-9]{1,9})"
_PUSH_V1 = paths.push_v1(_ID)
_PUSH_V2 = paths.push_v2(_ID)


def routes(
    user: UserRoutes,
    peer: PeerRoutes,
    plugin: PluginRoutes,
    status: StatusRoutes,
    page: PageRoutes,
    search: SearchRoutes,
    measure: MeasureRoutes,
    settings: SettingsRoutes,
    actions: ActionRoutes,
    rules: RuleRoutes,
    extras: ExtrasRoutes,
    transcoding: TranscodingRoutes,
) -> RouteTable:
    """All routes of the plugin; patterns match whole paths."""
    return (
        Route(paths.PLUGINS, {"GET": plugin.list_plugins}),
        Route(paths.EXPLORER_SCRIPT, {"GET": plugin.explorer}),
        Route(paths.PLUGIN, {"GET": plugin.describe}),
        Route(paths.SEND, {"POST": no_foreign_forms(user.send)}),
        Route(paths.PULL, {"POST": no_foreign_forms(user.pull)}),
        *(
            Route(paths.job_command(_ID, name), {"POST": partial(user.command_job, name)})
            for name in ("pause", "cancel")
        ),
        Route(paths.job(_ID), {"GET": user.describe_job, "DELETE": user.delete_job}),
        Route(paths.PEERS, {"GET": user.list_peers}),
        Route(paths.STATUS, {"GET": status.status}),
        # Orthanc does not tell a final slash; where there is none, a browser looks for the files one folder above.
        Route(f"{paths.PAGE}(?:/index.html)?", {"GET": page.file}),
        Route("/transfers/(?:app/)?assets/([^/]+)", {"GET": page.file}),
        Route(paths.PEERS_STATUS, {"GET": page.peers}),
        Route(paths.measure_peer("([^/]+)"), {"POST": own_site(measure.measure)}),
        Route(paths.FIND, {"POST": own_site(search.find)}),
        Route(paths.ACTIONS, {"POST": own_site(actions.act)}),
        Route(paths.SETTINGS, {"GET": settings.get, "PUT": own_site(settings.put)}),
        Route(paths.RULES, {"GET": rules.all, "POST": own_site(rules.add)}),
        Route(
            paths.rule(_RULE),
            {"GET": rules.get, "PUT": own_site(rules.put), "DELETE": no_foreign_forms(rules.delete)},
        ),
        Route(paths.run_rule(_RULE), {"POST": own_site(rules.run)}),
        Route(paths.compare_rule(_RULE), {"POST": own_site(rules.compare)}),
        Route(paths.RULE_QUEUE, {"GET": rules.queue}),
        Route(paths.RULE_HISTORY, {"GET": rules.history}),
        Route(paths.LOOKUP, {"POST": peer.lookup}),
        Route(f"{paths.CHUNKS_V1}/{_ID}", {"GET": peer.get_chunks}),
        Route(paths.PUSH_V1, {"POST": peer.create_push_v1}),
        Route(_PUSH_V1, {"DELETE": peer.drop_push}),
        Route(paths.bucket(_PUSH_V1, "([0-9]+)"), {"PUT": peer.put_bucket}),
        Route(paths.commit(_PUSH_V1), {"POST": peer.commit_push_v1}),
        Route(paths.CAPABILITIES, {"GET": peer.capabilities}),
        Route(paths.PUSH_V2, {"POST": peer.create_push_v2}),
        Route(paths.WHOLE_PUSH, {"POST": peer.whole_push}),
        Route(
            _PUSH_V2,
            {"GET": peer.push_status, "DELETE": peer.drop_push},
        ),
        Route(_PUSH_V2 + "((?:/[0-9]+/[0-9]+)+)", {"PUT": peer.put_ranges}),
        Route(paths.commit(_PUSH_V2), {"POST": peer.commit_push_v2}),
        Route(paths.push_extras(_PUSH_V2), {"POST": extras.take}),
        Route(paths.push_attachment(_PUSH_V2, _NUMBER, _NUMBER), {"PUT": extras.put_attachment}),
        Route(paths.EXTRAS, {"POST": extras.listed}),
        Route(
            f"{paths.ATTACHMENTS}/(patients|studies|series|instances)/{_ID}/{_NUMBER}/{_NUMBER}/{_NUMBER}",
            {"GET": extras.attachment},
        ),
        Route(paths.TRANSCODED, {"POST": transcoding.listed}),
        Route(paths.CHUNKS_V2, {"POST": peer.post_chunks}),
        Route(paths.MEASURE, {"POST": measure.take_bytes}),
        Route(paths.measured_bytes("([0-9]{1,9})"), {"GET": measure.send_bytes}),
        Route(paths.report(_ID), {"GET": peer.report}),
    )
