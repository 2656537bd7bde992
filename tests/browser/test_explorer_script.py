"""The button's script, without a browser."""

import re

from orthanc_transfers.explorer import javascript


def test_every_address_is_relative_so_that_a_prefix_of_a_reverse_proxy_is_kept() -> None:
    addresses = re.findall(r"url: '([^']*)'", javascript())
    assert addresses
    assert all(address.startswith("../transfers/") for address in addresses)


def test_the_script_is_ascii_so_that_no_charset_can_spoil_it() -> None:
    assert javascript().isascii()


def test_the_script_leaves_nothing_behind_in_the_scope_it_shares_with_other_plugins() -> None:
    code = re.sub(r"/\*.*?\*/", "", javascript(), flags=re.DOTALL).strip()
    assert code.startswith("(function($) {\n  'use strict';")
    assert code.endswith("})(jQuery);")
