"""What browsers load: the JavaScript of Orthanc Explorer's button, and the files of the page."""

from importlib.resources import files


def javascript() -> str:
    """The script that puts the button ``Transfers accelerator`` on the pages of Orthanc Explorer.

    ASCII text for ``orthanc.ExtendOrthancExplorer``, which joins it with the scripts of other plugins.
    """
    return files(__name__).joinpath("explorer.js").read_text(encoding="ascii")


def page_files() -> dict[str, bytes]:
    """The page, as it was built from ``app_src``: each file by its name below ``app``."""
    root = files(__name__).joinpath("app")
    assets = root.joinpath("assets")
    return {
        "index.html": root.joinpath("index.html").read_bytes(),
        **{f"assets/{one.name}": one.read_bytes() for one in assets.iterdir()},
    }
