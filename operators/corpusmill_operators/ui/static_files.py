"""The open files: our own scripts and styles, and plotly's script from its package. They hold no data."""

from importlib import resources
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"
SUFFIXES = (".js", ".css")
PLOTLY = "plotly.min.js"
"""Name under which plotly's script is served; it lies in the installed package, not here."""
DAY = "private, max-age=86400"


class ScriptsAndStyles(StaticFiles):
    """Serves ``.js`` and ``.css`` files of one folder; everything else does not exist."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def get_response(self, path: str, scope: Any) -> Response:
        """Returns a file, with a reminder to ask whether it changed; plotly's is kept for a day.

        Raises:
            HTTPException: 404, for other kinds of file and what is not there.
        """
        if not path.endswith(SUFFIXES):
            raise HTTPException(status_code=404)
        if path == PLOTLY:
            return plotly_script()
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def plotly_script() -> Response:
    """Returns the script that plotly's package carries.

    Raises:
        HTTPException: 404, where plotly is not installed; the page then shows its tables alone.
    """
    try:
        place = Path(str(resources.files("plotly") / "package_data" / PLOTLY))
    except ModuleNotFoundError:
        place = Path()
    if not place.is_file():
        raise HTTPException(status_code=404)
    return FileResponse(place, media_type="text/javascript", headers={"Cache-Control": DAY})
