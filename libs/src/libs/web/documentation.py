"""`/{service}/docs` and `/{service}/openapi.json` of a service; `/docs` and `/openapi.json` of all of them.

The page is Swagger UI, served from its package: nothing comes from elsewhere.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files

import msgspec
from litestar import Response, Router, get
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.static_files import create_static_files_router

from libs.web.access import anyone
from libs.web.etags import etag_of, etag_response
from libs.web.openapi import Document, without_dangling_links

CACHE_CONTROL = "public, max-age=60"
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
<link rel="icon" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</html>
"""
_SCRIPT = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


def documentation_routers(service: str, build: Callable[[], Document]) -> list[Router]:
    @cache
    def own() -> bytes:
        return msgspec.json.encode(without_dangling_links(build()))

    return [
        router
        for prefix, document in ((f"/{service}", own), ("", merged_document))
        for router in (
            Router(
                prefix or "/",
                route_handlers=[_json(document), page, script],
                guards=[anyone],
                include_in_schema=False,
            ),
            create_static_files_router(
                f"{prefix}/docs/assets",
                directories=[str(files("swagger_ui") / "static")],
                cache_control=CacheControlHeader(public=True, max_age=60),
                guards=[anyone],
                include_in_schema=False,
                name=f"assets of {prefix or 'all'}",
            ),
        )
    ]


@cache
def merged_document() -> bytes:
    """As committed; `make openapi` writes it."""
    return (files("contracts") / "openapi.json").read_bytes()


def _json(document: Callable[[], bytes]) -> HTTPRouteHandler:
    @get("/openapi.json")
    async def openapi() -> Response[bytes]:
        body = document()
        return etag_response(body, etag=etag_of(body), cache_control=CACHE_CONTROL)

    return openapi


@get("/docs", media_type="text/html")
async def page() -> Response[str]:
    headers = {"Cache-Control": CACHE_CONTROL, "Content-Security-Policy": _CONTENT_SECURITY_POLICY}
    return Response(_PAGE, headers=headers)


@get("/docs/page.js", media_type="text/javascript")
async def script() -> Response[str]:
    return Response(_SCRIPT, headers={"Cache-Control": CACHE_CONTROL})
