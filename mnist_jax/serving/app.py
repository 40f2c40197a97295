"""The server: routes from HTTP to the runs that it serves.

One worker thread computes, so that requests wait for each other and none for a lock of
XLA's. Nothing but this machine can reach it, and no page but its own: the host is
checked against DNS rebinding, and the origin of what a page posts.
"""

import asyncio
import concurrent.futures
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mnist_jax.errors import UserError
from mnist_jax.serving import bodies, responses
from mnist_jax.serving.served_run import ServedRun
from mnist_jax.settings import ConfigError

HOST = "127.0.0.1"
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": "page.html",
    "/page.js": "page.js",
    "/page.css": "page.css",
    "/icon.svg": "icon.svg",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def serve(runs: Sequence[ServedRun], port: int, folder: Path) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
      runs: with images of one shape.
      port: of 127.0.0.1; 0 for any that is free.
      folder: where drawings are kept.

    Raises:
      ConfigError: the port is taken, or not to be had.
    """
    with socket.socket() as listener:
        # So that a server which was just ended can be started again.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"--port={port}: {error.strerror}: give another, as --port=8001, or 0 "
                "for any that is free"
            ) from error
        listener.listen()  # so that who reads the line below can connect
        for run in runs:
            score = "" if run.test_accuracy is None else f", {run.test_accuracy:.2%}"
            print(f"{run.name}: {run.config.model} on {run.config.dataset}{score}")
        place = f"http://{HOST}:{listener.getsockname()[1]}"
        print(f"serving at {place} (Ctrl-C ends it)", flush=True)
        make_server(runs, folder).run(sockets=[listener])


def make_server(runs: Sequence[ServedRun], folder: Path) -> uvicorn.Server:
    """The server of `make_app`, which runs on the sockets that it is given."""
    config = uvicorn.Config(
        make_app(runs, folder),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def make_app(runs: Sequence[ServedRun], folder: Path) -> Starlette:
    """The ASGI application that serves these runs; see `serve`."""
    worker = concurrent.futures.ThreadPoolExecutor(1)
    shape = runs[0].image_shape

    async def compute(function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(worker, function, *args)

    async def get_runs(request: Request) -> Response:
        return JSONResponse([run.describe() for run in runs])

    async def post_predict(request: Request) -> Response:
        body, kind = await _read(request)
        if kind in (bodies.JSON, bodies.NPY):
            return JSONResponse(
                await compute(responses.predict_array, runs, body, kind, shape)
            )
        return JSONResponse(await compute(responses.predict_picture, runs, body, shape))

    async def post_saliency(request: Request) -> Response:
        body, _ = await _read(request)
        return JSONResponse(await compute(responses.saliency, runs, body, shape))

    async def post_drawing(request: Request) -> Response:
        body, _ = await _read(request)
        name = request.query_params.get("class")
        if name not in runs[0].class_names:
            expected = ", ".join(runs[0].class_names)
            raise bodies.BodyError(f"class={name}: expected one of {expected}")
        return JSONResponse(
            await compute(responses.keep, runs, folder, name, body, shape)
        )

    return Starlette(
        routes=[
            *(Route(path, _send_file(name)) for path, name in _FILES.items()),
            Route("/runs", get_runs),
            Route("/predict", post_predict, methods=["POST"]),
            Route("/saliency", post_saliency, methods=["POST"]),
            Route("/drawings", post_drawing, methods=["POST"]),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        ],
        exception_handlers={
            HTTPException: _tell_http_error,
            UserError: _tell_user_error,
            OSError: _tell_os_error,
            ClientDisconnect: _tell_nobody,
        },
        max_body_size=bodies.MAX_BYTES,
    )


def _send_file(name: str) -> Callable:
    async def send(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return send


async def _read(request: Request) -> tuple[bytes, str]:
    """Body and content type of a request that no other page sends."""
    origin, host = request.headers.get("origin"), request.headers["host"]
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        raise HTTPException(403, "posted by another page: open this server's own")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    known = kind.startswith("image/") or kind in (bodies.JSON, bodies.NPY)
    if not known:
        raise HTTPException(
            415,
            f"Content-Type is {kind or 'missing'!r}: expected image/png or another "
            f"image, {bodies.JSON} or {bodies.NPY}",
        )
    return await request.body(), kind


class _Headers:
    """Adds `_HEADERS` to each response."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _tell_http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _tell_user_error(request: Request, error: UserError) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _tell_os_error(request: Request, error: OSError) -> Response:
    return JSONResponse({"error": f"{error.filename}: {error.strerror}"}, 507)


async def _tell_nobody(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)
