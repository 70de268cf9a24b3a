"""HTTP server, page and scheduler: ``janus-r1 serve``. Needs the extra ``serve``."""
