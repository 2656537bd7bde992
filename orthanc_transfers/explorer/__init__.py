"""What Orthanc Explorer loads: the JavaScript of the button."""

from importlib.resources import files


def javascript() -> str:
    """The script that puts the button ``Transfers accelerator`` on the pages of Orthanc Explorer.

    ASCII text for ``orthanc.ExtendOrthancExplorer``, which joins it with the scripts of other plugins.
    """
    return files(__name__).joinpath("explorer.js").read_text(encoding="ascii")
